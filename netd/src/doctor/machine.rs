//! Checks of the machine itself: KVM, devices, kernel modules, capabilities, nft. Pure.

use crate::daemon::missing_capabilities;

use super::{
    Finding,
    facts::{Device, Modules, Nft, Seen, Vcpu},
};

/// What networks are made with, by kernel module. `nft_*` are the expressions and chain types our rules use.
const NEEDED: [&str; 9] =
    ["bridge", "tun", "nf_tables", "nf_nat", "nft_chain_nat", "nft_masq", "nft_ct", "nft_nat", "nft_reject_inet"];

pub(super) fn kvm_device(device: &Device) -> Finding {
    let (check, title) = ("kvm-device", "for device /dev/kvm");
    match device {
        Device::Open => Finding::pass(check, title),
        Device::Absent => Finding::fail(
            check,
            title,
            "there is none: virtualisation is off in the firmware, not offered to this virtual machine, or the module \
             is not loaded",
            "modprobe -a kvm_intel kvm_amd",
        ),
        Device::Forbidden => Finding::fail(
            check,
            title,
            "this user may not open it",
            "sudo usermod -aG kvm \"$USER\"  # and log in anew",
        ),
        Device::Broken(why) => Finding::fail(check, title, format!("cannot be opened: {why}"), "dmesg | grep -i kvm"),
    }
}

pub(super) fn kvm_runs_guests(vcpu: &Vcpu) -> Finding {
    let (check, title) = ("kvm-vcpu", "for a virtual CPU that runs stock code");
    match vcpu {
        Vcpu::Runs => Finding::pass(check, title),
        Vcpu::DoesNot(why) => Finding::fail(check, title, why.clone(), "vmm probe"),
        Vcpu::NoVmm => Finding::warn(
            check,
            title,
            "not tried: there is no vmm beside netd or on PATH",
            "make build  # or install vmm, then: vmm probe",
        ),
        Vcpu::NoKvm => {
            Finding::warn(check, title, "not tried: /dev/kvm cannot be opened", "netd doctor  # once it can")
        }
    }
}

pub(super) fn vhost_net(device: &Device) -> Finding {
    let (check, title) = ("vhost-net", "for device /dev/vhost-net");
    match device {
        Device::Open => Finding::pass(check, title),
        Device::Absent => {
            Finding::warn(check, title, "without it guests' network devices are slower", "sudo modprobe vhost_net")
        }
        Device::Forbidden => Finding::warn(
            check,
            title,
            "this user may not open it, and guests' network devices are slower without",
            "sudo usermod -aG kvm \"$USER\"  # and log in anew",
        ),
        Device::Broken(why) => Finding::warn(
            check,
            title,
            format!("cannot be opened: {why}"),
            "sudo modprobe -r vhost_net; sudo modprobe vhost_net",
        ),
    }
}

pub(super) fn tun(device: &Device) -> Finding {
    let (check, title) = ("tun", "for device /dev/net/tun");
    match device {
        Device::Open => Finding::pass(check, title),
        Device::Absent => Finding::fail(check, title, "guests can have no port without it", "sudo modprobe tun"),
        Device::Forbidden => Finding::warn(check, title, "only root may look", "sudo netd doctor"),
        Device::Broken(why) => Finding::fail(
            check,
            title,
            format!("guests can have no port: it cannot be opened: {why}"),
            "sudo modprobe tun",
        ),
    }
}

pub(super) fn modules(modules: &Modules) -> Finding {
    let (check, title) = ("modules", "for the kernel modules of networks");
    let absent: Vec<&str> =
        NEEDED.into_iter().filter(|needed| !modules.present.iter().any(|present| present == needed)).collect();
    if modules.fixed {
        return Finding::pass(check, title)
            .noting("this kernel loads none: what it has is built in, see the other checks");
    }
    if absent.is_empty() {
        return Finding::pass(check, title);
    }
    let Some(on_disk) = &modules.on_disk else {
        return Finding::fail(
            check,
            title,
            format!(
                "{} not loaded, and there are no modules of the running kernel {}: it was upgraded",
                absent.join(", "),
                modules.release
            ),
            "sudo reboot",
        );
    };
    let (loadable, missing): (Vec<&str>, Vec<&str>) =
        absent.into_iter().partition(|name| on_disk.iter().any(|present| present == name));
    if missing.is_empty() {
        return Finding::pass(check, title).noting(format!("loaded when needed: {}", loadable.join(", ")));
    }
    Finding::fail(
        check,
        title,
        format!("kernel {} has no {}", modules.release, missing.join(", ")),
        format!("sudo modprobe -a {}  # then install the distribution's full kernel package", missing.join(" ")),
    )
}

pub(super) fn capabilities(status: &Seen<String>, daemon_runs: bool) -> Finding {
    let (check, title) = ("capabilities", "for the daemon's capabilities");
    if daemon_runs {
        // It checks them itself before it answers anybody.
        return Finding::pass(check, title).noting("the running daemon has them");
    }
    match status {
        Err(unseen) => Finding::unseen(check, title, unseen, "grep Cap /proc/self/status"),
        Ok(status) => match missing_capabilities(status) {
            missing if missing.is_empty() => Finding::pass(check, title),
            missing => Finding::warn(
                check,
                title,
                format!("a daemon started like this would lack {}", missing.join(", ")),
                "sudo netd doctor",
            ),
        },
    }
}

pub(super) fn nft(nft: &Nft) -> Finding {
    let (check, title) = ("nft", "for nft and a kernel that takes our rules");
    match nft {
        Nft::Works => Finding::pass(check, title),
        Nft::Absent => Finding::fail(check, title, "there is no nft program", "sudo apt install nftables"),
        Nft::Forbidden => Finding::warn(check, title, "only root may look", "sudo netd doctor"),
        Nft::Refused(why) => Finding::fail(
            check,
            title,
            why.clone(),
            "sudo modprobe -a nf_tables nft_chain_nat nft_masq nft_ct nft_reject_inet",
        ),
    }
}
