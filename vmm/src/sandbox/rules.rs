//! Which system calls each kind of thread may make.
//!
//! Pure: names in, rules out. A list names what the code of that thread and the libraries under it need; everything else
//! is refused. Filters add up: what the process may not do no thread may, so the process has all that any thread has.

use libc::c_long;

/// What a thread is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The main thread, and every thread until it takes a role.
    Process,
    /// Runs a CPU. It starts the threads of devices when the guest's drivers do.
    Vcpu,
    /// Moves data between queues and descriptors that were opened before.
    Device,
    /// The same, and makes and accepts connections of unix sockets.
    Sockets,
    /// Carries bytes between a terminal or its clients and the serial port.
    Console,
    /// Answers on the control socket.
    Control,
}

impl Role {
    /// Those a thread can take.
    pub(super) const THREADS: [Role; 5] = [Role::Vcpu, Role::Device, Role::Sockets, Role::Console, Role::Control];
}

/// A condition on one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) argument: u8,
    /// Bits that are looked at, and what they must be.
    pub(super) mask: u64,
    pub(super) value: u64,
}

/// A system call that is allowed, if all conditions hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Allowed {
    pub(super) number: c_long,
    pub(super) conditions: Vec<Condition>,
}

/// Memory, time, waiting, locks, signals, and descriptors that are there.
const COMMON: [c_long; 43] = [
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_fcntl,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_tgkill,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_lseek,
];

/// Data of descriptors that are there.
const DATA: [c_long; 6] = [
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_fdatasync,
    libc::SYS_fallocate,
];

/// Clients of a socket that listens.
const CLIENTS: [c_long; 10] = [
    libc::SYS_accept4,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_shutdown,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
];

/// New threads, and the roles they take.
const THREADS: [c_long; 4] = [libc::SYS_clone, libc::SYS_clone3, libc::SYS_prctl, libc::SYS_seccomp];

/// ioctls of device threads: taps' offloads and queues, a vector that is routed late, non-blocking sockets.
const DEVICE_IOCTLS: [u64; 5] = [libc::TUNSETOFFLOAD, libc::TUNSETQUEUE, KVM_SET_GSI_ROUTING, KVM_IRQFD, libc::FIONBIO];
/// linux/kvm.h: `_IOW(0xae, 0x6a, 8 bytes)` and `_IOW(0xae, 0x76, 32 bytes)`.
const KVM_SET_GSI_ROUTING: u64 = 0x4008_ae6a;
const KVM_IRQFD: u64 = 0x4020_ae76;

/// What threads of this role may do.
pub(super) fn allowed(role: Role) -> Vec<Allowed> {
    let mut list = plain(&COMMON);
    list.extend(no_executable_memory());
    let ioctls = |ioctls: &[u64]| {
        ioctls.iter().map(|request| conditional(libc::SYS_ioctl, 1, u64::MAX, *request)).collect::<Vec<_>>()
    };
    let unix = |number| conditional(number, 0, u64::MAX, libc::AF_UNIX as u64);
    match role {
        Role::Process => {
            list.extend(plain(&[&DATA[..], &CLIENTS, &THREADS].concat()));
            list.extend(plain(&[
                libc::SYS_ioctl,
                libc::SYS_connect,
                libc::SYS_unlink,
                libc::SYS_unlinkat,
                libc::SYS_fstat,
                libc::SYS_getpgrp,
            ]));
            list.extend([unix(libc::SYS_socket), unix(libc::SYS_socketpair)]);
            list.extend(about_descriptors());
        }
        Role::Vcpu => {
            list.extend(plain(&[&DATA[..], &CLIENTS, &THREADS].concat()));
            list.extend(plain(&[libc::SYS_ioctl, libc::SYS_connect]));
            list.push(unix(libc::SYS_socket));
        }
        Role::Device => {
            list.extend(plain(&DATA));
            list.extend(ioctls(&DEVICE_IOCTLS));
        }
        Role::Sockets => {
            list.extend(plain(&CLIENTS));
            list.extend(plain(&[libc::SYS_connect]));
            list.push(unix(libc::SYS_socket));
            list.extend(ioctls(&DEVICE_IOCTLS));
        }
        Role::Console | Role::Control => {
            list.extend(plain(&CLIENTS));
            list.extend(ioctls(&[libc::FIONBIO]));
        }
    }
    list
}

fn plain(numbers: &[c_long]) -> Vec<Allowed> {
    numbers.iter().map(|number| Allowed { number: *number, conditions: Vec::new() }).collect()
}

fn conditional(number: c_long, argument: u8, mask: u64, value: u64) -> Allowed {
    Allowed { number, conditions: vec![Condition { argument, mask, value }] }
}

/// Nothing that was written becomes code.
fn no_executable_memory() -> [Allowed; 2] {
    [libc::SYS_mmap, libc::SYS_mprotect].map(|number| conditional(number, 2, libc::PROT_EXEC as u64, 0))
}

/// Questions about open files, not about names.
fn about_descriptors() -> [Allowed; 2] {
    let empty = libc::AT_EMPTY_PATH as u64;
    [conditional(libc::SYS_statx, 2, empty, empty), conditional(libc::SYS_newfstatat, 3, empty, empty)]
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Role; 6] = [Role::Process, Role::Vcpu, Role::Device, Role::Sockets, Role::Console, Role::Control];

    #[test]
    fn nobody_may_run_programs_open_files_or_look_at_other_processes() {
        let never = [
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_open,
            libc::SYS_openat,
            libc::SYS_openat2,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_bpf,
            libc::SYS_mount,
            libc::SYS_kill,
            libc::SYS_bind,
            libc::SYS_listen,
            libc::SYS_fork,
            libc::SYS_setuid,
            libc::SYS_unshare,
            libc::SYS_io_uring_setup,
            libc::SYS_memfd_create,
        ];
        for role in ALL {
            let list = allowed(role);
            assert!(list.iter().all(|allowed| !never.contains(&allowed.number)), "{role:?}");
        }
    }

    #[test]
    fn the_process_may_what_any_thread_may_and_a_cpu_what_the_devices_it_starts_may() {
        let has = |of: Role, wanted: &Allowed| {
            let mut list = allowed(of).into_iter().filter(|allowed| allowed.number == wanted.number);
            list.any(|allowed| allowed.conditions.is_empty() || allowed == *wanted)
        };
        for role in Role::THREADS {
            assert!(allowed(role).iter().all(|wanted| has(Role::Process, wanted)), "{role:?}");
        }
        for role in [Role::Device, Role::Sockets] {
            assert!(allowed(role).iter().all(|wanted| has(Role::Vcpu, wanted)), "{role:?}");
        }
    }
}
