//! `vmm run` with what people get wrong: one clear error that names the thing and the next move, a non-zero exit, nothing
//! left behind. Needs `/dev/kvm`, root (to become somebody else) and no netd.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// A kernel by its headers, which is all that is looked at before the guest runs.
fn kernel(directory: &Path) -> PathBuf {
    let path = directory.join("vmlinuz");
    let mut image = vec![0; 4096];
    image[0x202..0x206].copy_from_slice(b"HdrS");
    fs::write(&path, image).unwrap();
    path
}

fn vmm(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmm"));
    command.arg("run").args(["--name", "vm1"]).args(words).stdin(std::process::Stdio::null());
    command
}

/// Runs what must fail and gives the one line it must say.
fn error_of(command: Command) -> String {
    complaint(command, 1)
}

/// The same with another exit code.
fn complaint(mut command: Command, code: i32) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(code), "{said}");
    assert_eq!(String::from_utf8(stdout).unwrap(), "");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("error: "), "{said}");
    said
}

/// The error of a guest whose kernel is fine and whose other words are `words`.
fn error_with_kernel(words: &[&str]) -> String {
    let directory = tempfile::tempdir().unwrap();
    let kernel = kernel(directory.path());
    error_of(vmm(&[&["--kernel", kernel.to_str().unwrap()], words].concat()))
}

#[test]
fn a_missing_kernel_is_named() {
    let said = error_of(vmm(&["--kernel", "/nonexistent/vmlinuz"]));
    assert!(
        said.contains("the kernel /nonexistent/vmlinuz: No such file") && said.contains("check the path"),
        "{said}"
    );
}

#[test]
fn a_file_that_is_no_kernel_is_named() {
    let said = error_of(vmm(&["--kernel", "/etc/passwd"]));
    assert!(said.contains("/etc/passwd is not a kernel: give a bzImage"), "{said}");
}

#[test]
fn a_missing_initrd_and_a_missing_disk_are_named() {
    assert!(error_with_kernel(&["--initrd", "/nonexistent/initrd"]).contains("initrd /nonexistent/initrd"));
    assert!(error_with_kernel(&["--disk", "/nonexistent/disk.raw"]).contains("/nonexistent/disk.raw"));
}

#[test]
fn words_that_make_no_sense_are_named_before_any_file_is_opened() {
    for (words, expected) in [
        (["--cpus", "0"], "0 CPUs is not possible"),
        (["--cpus", "65"], "give 1 to 64"),
        (["--memory", "lots"], "'lots' is not an amount of memory"),
        (["--memory", "1M"], "too little"),
        (["--disk", "a.raw,format=qcow2"], "unknown option 'format=qcow2'"),
        (["--network", "default,model=e1000"], "unknown option 'model'"),
        (["--network", "default,mac=nonsense"], "'nonsense' is not a MAC address"),
        (["--console", "pty"], "--console 'pty'"),
    ] {
        let said = complaint(vmm(&[&["--kernel", "/nonexistent/vmlinuz"], &words[..]].concat()), 2);
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn more_memory_than_the_host_has_is_refused() {
    let said = error_with_kernel(&["--memory", "4T"]);
    assert!(said.contains("--memory"), "{said}");
}

#[test]
fn a_netd_that_is_not_there_is_named_with_the_next_move_and_the_console_socket_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("console.sock");
    let words =
        ["--network", "default", "--netd-socket", "/nonexistent/netd.sock", "--console", socket.to_str().unwrap()];
    let said = error_with_kernel(&words);
    assert!(said.contains("network 'default'") && said.contains("/nonexistent/netd.sock"), "{said}");
    assert!(said.contains("netd daemon") && said.contains("--netd-socket"), "{said}");
    assert!(!socket.exists());
}

#[test]
fn a_user_who_may_not_use_kvm_is_told_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let (kernel, program) = (kernel(directory.path()), directory.path().join("vmm"));
    // Nobody may look into the build directory. The copy is made by another process: a descriptor of ours that is open for
    // writing, and in a child that another test starts just then, would make the program one that cannot be run.
    assert!(Command::new("cp").arg(env!("CARGO_BIN_EXE_vmm")).arg(&program).status().unwrap().success());
    for path in [directory.path(), &kernel, &program] {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let mut command = Command::new(program);
    command.args(["run", "--name", "vm1", "--kernel"]).arg(kernel).uid(65534).gid(65534);
    let said = error_of(command);
    assert!(said.contains("no permission to use /dev/kvm") && said.contains("usermod"), "{said}");
}

#[test]
fn a_host_without_kvm_is_told_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let kernel = kernel(directory.path());
    // A mount namespace of its own, in which /dev is empty.
    let script = "mount -t tmpfs none /dev && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh", env!("CARGO_BIN_EXE_vmm")]);
    command.args(["run", "--name", "vm1", "--kernel"]).arg(kernel);
    let said = error_of(command);
    assert!(said.contains("/dev/kvm is not there") && said.contains("kvm_intel or kvm_amd"), "{said}");
}
