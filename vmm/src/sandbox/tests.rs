//! What a thread in the sandbox can still do, tried on threads of this test process: filters and landlock are a thread's.

use std::fs::File;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::os::unix::net::UnixListener;

use super::*;

/// Runs `body` on a thread of its own.
fn on_a_thread<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::spawn(body).join().unwrap()
}

/// The errno of a system call that takes three numbers.
fn errno_of(number: libc::c_long, arguments: [usize; 3]) -> i32 {
    let [a, b, c] = arguments;
    // SAFETY: callers pass null pointers where the call takes some; the kernel answers EFAULT if it gets that far.
    match unsafe { libc::syscall(number, a, b, c) } {
        -1 => io::Error::last_os_error().raw_os_error().unwrap_or(0),
        _ => 0,
    }
}

#[test]
fn threads_of_every_role_can_neither_open_files_nor_run_programs() {
    for role in Role::THREADS.into_iter().chain([Role::Process]) {
        on_a_thread(move || {
            assert!(File::open("/etc/passwd").is_ok());
            assert_eq!(errno_of(libc::SYS_execve, [0; 3]), libc::EFAULT);
            seccompiler::apply_filter(&filter(role).unwrap()).unwrap();
            assert_eq!(File::open("/etc/passwd").unwrap_err().kind(), ErrorKind::PermissionDenied, "{role:?}");
            for number in [libc::SYS_execve, libc::SYS_openat2, libc::SYS_ptrace, libc::SYS_bpf, libc::SYS_kill] {
                assert_eq!(errno_of(number, [0; 3]), libc::EPERM, "{role:?}: {number}");
            }
            // Memory that is code; and what every thread needs goes on.
            let exec = (libc::PROT_READ | libc::PROT_EXEC) as usize;
            assert_eq!(errno_of(libc::SYS_mprotect, [0, 0, exec]), libc::EPERM, "{role:?}");
            assert_eq!(vec![1_u8; 1 << 20].len(), 1 << 20);
            std::thread::sleep(std::time::Duration::from_millis(1));
        });
    }
}

#[test]
fn only_threads_that_serve_sockets_make_connections_and_only_of_unix_sockets() {
    for (role, may) in [
        (Role::Process, true),
        (Role::Vcpu, true),
        (Role::Sockets, true),
        (Role::Device, false),
        (Role::Console, false),
        (Role::Control, false),
    ] {
        on_a_thread(move || {
            seccompiler::apply_filter(&filter(role).unwrap()).unwrap();
            let unix = errno_of(libc::SYS_socket, [libc::AF_UNIX as usize, libc::SOCK_STREAM as usize, 0]);
            assert_eq!(unix, if may { 0 } else { libc::EPERM }, "{role:?}");
            let inet = errno_of(libc::SYS_socket, [libc::AF_INET as usize, libc::SOCK_STREAM as usize, 0]);
            assert_eq!(inet, libc::EPERM, "{role:?}");
        });
    }
}

#[test]
fn device_threads_have_the_ioctls_of_their_descriptors_and_no_others() {
    on_a_thread(|| {
        seccompiler::apply_filter(&filter(Role::Device).unwrap()).unwrap();
        let ioctl = |request: u64| errno_of(libc::SYS_ioctl, [usize::MAX, request as usize, 0]);
        assert_eq!(ioctl(libc::TUNSETOFFLOAD), libc::EBADF);
        for request in [libc::TUNSETIFF, libc::TIOCSTI, 0xae01] {
            assert_eq!(ioctl(request), libc::EPERM);
        }
        assert!(std::thread::Builder::new().spawn(|| ()).is_err(), "no threads of its own");
    });
}

#[test]
fn landlock_leaves_nothing_of_the_file_system_but_the_removal_of_sockets() {
    let directory = tempfile::tempdir().unwrap();
    let (socket, file, other) = (directory.path().join("s"), directory.path().join("f"), tempfile::tempdir().unwrap());
    let _listener = UnixListener::bind(&socket).unwrap();
    std::fs::write(&file, "x").unwrap();
    std::fs::write(other.path().join("f"), "x").unwrap();
    on_a_thread(move || {
        let open = File::open(&file).unwrap();
        restrict_files(&[&socket]).unwrap();
        let denied = |result: io::Result<()>| result.unwrap_err().kind() == ErrorKind::PermissionDenied;
        assert!(denied(File::open(&file).map(drop)));
        assert!(denied(File::create(directory.path().join("new")).map(drop)));
        assert!(denied(std::fs::read_dir("/").map(drop)));
        assert!(denied(std::fs::remove_file(other.path().join("f"))));
        assert!(denied(TcpStream::connect("127.0.0.1:9").map(drop)));
        assert!(io::read_to_string(open).is_ok(), "what is open stays open");
        std::fs::remove_file(&socket).unwrap();
    });
}
