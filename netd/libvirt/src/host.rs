//! EDGE: what procfs and sysfs say of the host, as it was at most a second ago.

use std::{
    cell::RefCell,
    fs,
    time::{Duration, Instant},
};

use nix::sys::utsname::uname;

use crate::{
    error::{Code, Domain, RemoteError},
    node::{self, Host, Processor},
};

/// Reading takes the kernel a while, and all clients wait: nobody can have it done more often than once in this time.
const RECENT: Duration = Duration::from_secs(1);

/// The host as it was read last.
#[derive(Debug, Default)]
pub(crate) struct Recent(RefCell<Option<(Instant, Host)>>);

impl Recent {
    /// The host as it is, or was a moment ago.
    pub(crate) fn get(&self) -> Result<Host, RemoteError> {
        let now = Instant::now();
        let mut last = self.0.borrow_mut();
        match &*last {
            Some((when, host)) if now < *when + RECENT => Ok(host.clone()),
            _ => {
                let host = read()?;
                *last = Some((now, host.clone()));
                Ok(host)
            }
        }
    }
}

fn read() -> Result<Host, RemoteError> {
    let meminfo = need("/proc/meminfo")?;
    let cpuinfo = need("/proc/cpuinfo")?;
    let online = node::list(&need("/sys/devices/system/cpu/online")?);
    Ok(Host {
        machine: uname().map(|names| names.machine().to_string_lossy().into_owned()).unwrap_or_default(),
        uuid: node::host_uuid(
            fs::read_to_string("/sys/class/dmi/id/product_uuid").ok().as_deref(),
            fs::read_to_string("/etc/machine-id").ok().as_deref(),
        ),
        processors: online.into_iter().map(processor).collect(),
        frequency: node::frequency(&cpuinfo).unwrap_or_default(),
        memory: node::memory(&meminfo).unwrap_or_default(),
    })
}

/// The host's name, in full where `/etc/hosts` has it so.
pub(crate) fn name() -> Result<String, RemoteError> {
    let hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
    Ok(node::full_name(need("/proc/sys/kernel/hostname")?.trim(), &hosts))
}

fn processor(number: u32) -> Processor {
    let directory = format!("/sys/devices/system/cpu/cpu{number}");
    let id = |what: &str| -> Option<u32> {
        fs::read_to_string(format!("{directory}/topology/{what}")).ok()?.trim().parse().ok()
    };
    // The node a processor is on is a link in its directory.
    let node = fs::read_dir(&directory).ok().into_iter().flatten().flatten();
    let node = node.filter_map(|entry| entry.file_name().to_str()?.strip_prefix("node")?.parse().ok()).next();
    Processor {
        node: node.unwrap_or_default(),
        package: id("physical_package_id").unwrap_or_default(),
        core: id("core_id").unwrap_or(number),
    }
}

fn need(path: &str) -> Result<String, RemoteError> {
    fs::read_to_string(path).map_err(|cause| RemoteError {
        code: Code::System,
        domain: Domain::Qemu,
        message: format!("cannot read {path}: {cause}"),
    })
}
