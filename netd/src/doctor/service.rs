//! Checks of what the daemon lives on: resolvers, its socket, its directories, room on the disk. Pure.

use std::net::{IpAddr, Ipv4Addr};

use super::{
    Finding,
    facts::{Daemon, Directory, DirectoryState, Listener, ResolvConf, Resolvers, Room, Seen},
    sockets::DNS,
};

/// systemd-resolved's stubs (systemd-resolved.service(8)).
const STUBS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53)), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 54))];

/// A lease takes about 200 bytes, a transaction of the database some pages: with less, leases fail any moment.
const LEAST_BYTES: u64 = 1 << 20;

/// With less it is time to look.
const FEW_BYTES: u64 = 64 << 20;

/// The database, its journal, and the daemon's own files while they are replaced.
const LEAST_FILES: u64 = 16;

pub(super) fn resolvers(resolvers: &Resolvers, listeners: &Seen<Vec<Listener>>) -> Finding {
    let (check, title) = ("resolvers", "for resolvers to ask on behalf of guests");
    let path = resolvers.path.display();
    let nothing = "guests resolve only names of their own network";
    let write = format!("echo nameserver 9.9.9.9 | sudo tee {path}");
    let text = match &resolvers.file {
        ResolvConf::Text(text) => text,
        ResolvConf::Missing => return Finding::fail(check, title, format!("there is no {path}: {nothing}"), write),
        ResolvConf::Dangling(target) => {
            let says = format!("{path} is a link to {}, which does not exist: {nothing}", target.display());
            let mend = if target.starts_with("/run/systemd/resolve") {
                "sudo systemctl enable --now systemd-resolved".to_owned()
            } else {
                format!("sudo rm {path} && {write}")
            };
            return Finding::fail(check, title, says, mend);
        }
        ResolvConf::Unreadable(why) => {
            return Finding::fail(check, title, format!("{path} cannot be read: {why}"), format!("ls -lL {path}"));
        }
    };
    let servers = nameservers(text);
    if servers.is_empty() {
        return Finding::fail(check, title, format!("{path} names no server: {nothing}"), write);
    }
    if servers.iter().any(|server| !is_local(*server)) {
        return Finding::pass(check, title);
    }
    let behind = resolvers.behind_stub.as_deref().map(nameservers).unwrap_or_default();
    if servers.iter().all(|server| STUBS.contains(server)) && behind.iter().any(|server| !is_local(*server)) {
        return Finding::pass(check, title).noting("systemd-resolved's own, which netd asks directly");
    }
    let Ok(listeners) = listeners else {
        return Finding::warn(
            check,
            title,
            format!("{path} names only this host, and who listens here could not be seen"),
            "sudo netd doctor",
        );
    };
    let heard = |server: &IpAddr| {
        listeners
            .iter()
            .any(|listener| listener.port == DNS && (listener.address == *server || listener.address.is_unspecified()))
    };
    if servers.iter().any(heard) {
        return Finding::pass(check, title).noting("a resolver on this host");
    }
    let stub = servers.iter().any(|server| STUBS.contains(server));
    let mend = if stub { "sudo systemctl enable --now systemd-resolved".to_owned() } else { write };
    Finding::fail(
        check,
        title,
        format!("{path} names only this host, where nobody listens on port 53: {nothing}"),
        mend,
    )
}

fn nameservers(text: &str) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let address = words.next().filter(|word| *word == "nameserver").and(words.next())?;
            // without an IPv6 address's interface
            address.split('%').next()?.parse().ok()
        })
        .collect()
}

/// resolv.conf(5): an unspecified address means this host too.
fn is_local(server: IpAddr) -> bool {
    server.is_loopback() || server.is_unspecified()
}

pub(super) fn daemon(daemon: &Daemon) -> Finding {
    let (check, title) = ("daemon", "for a daemon that answers");
    match daemon {
        Daemon::Answers(_) => Finding::pass(check, title),
        Daemon::Absent(path) => Finding::warn(
            check,
            title,
            format!("nobody listens on {}", path.display()),
            "sudo systemctl start netd  # or: sudo netd daemon",
        ),
        Daemon::Forbidden(path) => {
            Finding::warn(check, title, format!("this user may not connect to {}", path.display()), "sudo netd doctor")
        }
        Daemon::Broken(path, why) => Finding::fail(
            check,
            title,
            format!("{} does not answer as netd does: {why}", path.display()),
            "sudo systemctl restart netd",
        ),
    }
}

pub(super) fn directory(directory: &Directory) -> Finding {
    let (check, title) = ("directory", format!("for the directory of {}", directory.role));
    let path = directory.path.display();
    match &directory.state {
        DirectoryState::Writable => Finding::pass(check, title),
        DirectoryState::Creatable => Finding::pass(check, title).noting(format!("{path} is made by the daemon")),
        DirectoryState::Forbidden => {
            Finding::warn(check, title, format!("this user may not write to {path}"), "sudo netd doctor")
        }
        DirectoryState::Broken(why) => Finding::fail(
            check,
            title,
            format!("{path} cannot be used: {why}"),
            format!("findmnt -T {path}; ls -ld {path}"),
        ),
    }
}

pub(super) fn room(room: &Seen<Room>) -> Finding {
    let (check, title) = ("room", "for room on the disk of the leases");
    let room = match room {
        Ok(room) => room,
        Err(unseen) => return Finding::unseen(check, title, unseen, "df -h /var/lib"),
    };
    let path = room.path.display();
    let mend = format!("df -h {path}; df -i {path}");
    if let Some(files) = room.files.filter(|files| *files < LEAST_FILES) {
        return Finding::fail(
            check,
            title,
            format!("room for only {files} more files at {path}: no lease can be given"),
            mend,
        );
    }
    let says = format!("{} KiB free at {path}", room.bytes / 1024);
    match room.bytes {
        ..LEAST_BYTES => Finding::fail(check, title, format!("{says}: no lease can be given"), mend),
        LEAST_BYTES..FEW_BYTES => Finding::warn(check, title, says, mend),
        _ => Finding::pass(check, title),
    }
}
