//! resolv.conf: written, replaced, linked, gone and back.

use std::{fs, os::unix::fs::symlink, time::Instant};

use super::harness::{Network, PATIENCE, Upstream, in_netns};
use crate::dns::{
    testing::{query, read},
    wire::{rcode, rtype},
};

/// Waits until a fresh question reaches `upstream`, or until none gets an answer.
async fn until_asked(network: &Network, upstream: Option<&Upstream>) {
    let start = Instant::now();
    for n in 0.. {
        assert!(start.elapsed() < PATIENCE, "the change is not noticed");
        let before = upstream.map_or(0, |upstream| upstream.seen().len());
        let text = format!("n{n}-{:?}.example", start.elapsed().as_nanos());
        let message = read(&network.ask(&query(1, &text, rtype::A)).await);
        let failed = u16::from(message.metadata.response_code) == rcode::SERVFAIL;
        if upstream.map_or(failed, |upstream| upstream.seen().len() > before) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[test]
fn a_new_list_is_noticed_however_it_is_written() {
    in_netns(|| async {
        let (one, two) = (Upstream::start("127.0.0.2").await, Upstream::start("127.0.0.3").await);
        let network = Network::start("nameserver 127.0.0.2\n").await;
        let directory = &network.directory;
        until_asked(&network, Some(&one)).await;
        directory.write("resolv.conf", "nameserver 127.0.0.3\n");
        until_asked(&network, Some(&two)).await;
        fs::rename(directory.write("new", "nameserver 127.0.0.2\n"), directory.path("resolv.conf")).unwrap();
        until_asked(&network, Some(&one)).await;
        fs::remove_file(directory.path("resolv.conf")).unwrap();
        until_asked(&network, None).await;
        symlink("other", directory.path("resolv.conf")).unwrap();
        directory.write("other", "nameserver 127.0.0.3\n");
        until_asked(&network, Some(&two)).await;
        directory.write("other", "nameserver 127.0.0.2\n");
        until_asked(&network, Some(&one)).await;
    });
}

#[test]
fn a_link_into_a_directory_that_comes_later_is_followed() {
    in_netns(|| async {
        let one = Upstream::start("127.0.0.2").await;
        let network = Network::start_with("", |config, _| {
            fs::remove_file(&config.resolv_conf).unwrap();
            symlink("run/resolve/stub.conf", &config.resolv_conf).unwrap();
        })
        .await;
        until_asked(&network, None).await;
        fs::create_dir(network.directory.path("run")).unwrap();
        fs::create_dir(network.directory.path("run/resolve")).unwrap();
        network.directory.write("run/resolve/stub.conf", "nameserver 127.0.0.2\n");
        until_asked(&network, Some(&one)).await;
        fs::remove_dir_all(network.directory.path("run")).unwrap();
        until_asked(&network, None).await;
        fs::create_dir_all(network.directory.path("run/resolve")).unwrap();
        network.directory.write("run/resolve/stub.conf", "nameserver 127.0.0.2\n");
        until_asked(&network, Some(&one)).await;
    });
}

#[test]
fn the_hosts_stub_is_asked_until_its_own_list_is_there() {
    in_netns(|| async {
        let (stub, behind) = (Upstream::start("127.0.0.53").await, Upstream::start("127.0.0.2").await);
        let network = Network::start("nameserver 127.0.0.53\n").await;
        until_asked(&network, Some(&stub)).await;
        network.directory.write("behind-stub.conf", "nameserver 127.0.0.2\n");
        until_asked(&network, Some(&behind)).await;
        fs::remove_file(network.directory.path("behind-stub.conf")).unwrap();
        until_asked(&network, Some(&stub)).await;
    });
}

#[test]
fn a_missing_directory_is_not_fatal() {
    in_netns(|| async {
        let one = Upstream::start("127.0.0.2").await;
        let network = Network::start_with("", |config, _| {
            let directory = config.resolv_conf.parent().unwrap().join("etc");
            config.resolv_conf = directory.join("resolv.conf");
        })
        .await;
        until_asked(&network, None).await;
        fs::create_dir(network.directory.path("etc")).unwrap();
        network.directory.write("etc/resolv.conf", "nameserver 127.0.0.2\n");
        until_asked(&network, Some(&one)).await;
    });
}

#[test]
fn a_pipe_in_place_of_the_list_stops_nobody() {
    in_netns(|| async {
        let network = Network::start_with("", |config, _| {
            fs::remove_file(&config.resolv_conf).unwrap();
            nix::unistd::mkfifo(&config.resolv_conf, nix::sys::stat::Mode::S_IRUSR).unwrap();
        })
        .await;
        until_asked(&network, None).await;
    });
}

#[test]
fn networks_that_follow_the_same_list_share_a_watch() {
    in_netns(|| async {
        let one = Network::start("").await;
        let count = || {
            let entries = fs::read_dir("/proc/self/fd").unwrap().filter_map(Result::ok);
            let links = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
            links.filter(|link| link.to_string_lossy().contains("inotify")).count()
        };
        tokio::task::yield_now().await;
        let file = one.directory.path("resolv.conf");
        let behind = one.directory.path("behind-stub.conf");
        let before = count();
        let mut others = Vec::new();
        for last in 2..12 {
            let (file, behind) = (file.clone(), behind.clone());
            super::harness::ip(&format!("addr add 192.168.150.{last}/24 dev br0"));
            let network = Network::start_with("", |config, surroundings| {
                config.listen = vec![std::net::Ipv4Addr::new(192, 168, 150, last).into()];
                config.resolv_conf = file;
                surroundings.behind_stub = behind;
            });
            others.push(network.await);
        }
        tokio::task::yield_now().await;
        // Tests in other threads may have a few of their own; ten more would be ours.
        assert!(count() < before + 10, "{before} watches, then {}", count());
    });
}
