//! Hooks that work, fail, hang and say much.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use tempfile::TempDir;

use super::*;

fn script(directory: &Path, name: &str, text: &str) {
    let path = directory.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn call(directory: &TempDir, patience: Duration, operation: Operation) -> Result<(), HookError> {
    let hooks = Hooks::new(directory.path().to_owned()).with_patience(patience);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // A script that another test's child still holds open for writing cannot be run for a moment.
    runtime.block_on(async {
        loop {
            match hooks.call("default", operation, "<hookData/>\n").await {
                Err(HookError { how: How::NotRun(cause), .. }) if cause.contains("Text file busy") => {}
                result => return result,
            }
        }
    })
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn hooks_are_called_in_order_with_libvirts_arguments_and_input() {
    let directory = tempfile::tempdir().unwrap();
    let said = directory.path().join("said");
    let note = format!("echo \"$0 $*\" >> {0}; cat >> {0}; env | grep -c LC_ALL=C >> {0}", said.display());
    for name in ["network.d/20-b", "network", "network.d/10-a"] {
        script(directory.path(), name, &note);
    }
    fs::write(directory.path().join("network.d/00-note.txt"), "not a program").unwrap();
    call(&directory, LONG, Operation::Stopped).unwrap();
    let expected: String = ["network", "network.d/10-a", "network.d/20-b"]
        .map(|name| format!("{}/{name} default stopped end -\n<hookData/>\n1\n", directory.path().display()))
        .concat();
    assert_eq!(fs::read_to_string(said).unwrap(), expected);
}

#[test]
fn where_there_are_no_hooks_nothing_is_run() {
    let directory = tempfile::tempdir().unwrap();
    call(&directory, LONG, Operation::Start).unwrap();
    assert!(!Hooks::new(directory.path().join("none")).exist());
}

#[test]
fn a_hook_that_fails_is_the_last_and_its_words_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let after = directory.path().join("after");
    script(directory.path(), "network", "echo 'no room' >&2; exit 3");
    script(directory.path(), "network.d/more", &format!("touch {}", after.display()));
    let error = call(&directory, LONG, Operation::Start).unwrap_err();
    let path = directory.path().display();
    assert_eq!(
        error.to_string(),
        format!(
            "Hook script execution failed: internal error: Child process (LC_ALL=C {path}/network default start \
             begin -) unexpected exit status 3: no room"
        )
    );
    assert!(!after.exists());
    script(directory.path(), "network", "kill -9 $$");
    let error = call(&directory, LONG, Operation::Start).unwrap_err();
    assert_eq!(error.how, How::Signal { signal: 9, stderr: String::new() });
}

#[test]
fn a_hook_that_hangs_is_killed_with_all_it_started() {
    let directory = tempfile::tempdir().unwrap();
    let child = directory.path().join("child");
    // Ignoring what can be ignored.
    let text = format!("trap '' TERM INT; sleep 1000 & echo $! > {}; echo waiting >&2; wait", child.display());
    script(directory.path(), "network", &text);
    let patience = Duration::from_secs(2);
    let error = call(&directory, patience, Operation::Started).unwrap_err();
    assert_eq!(error.how, How::TooLong { patience, stderr: "waiting".into() });
    let id: u32 = fs::read_to_string(child).unwrap().trim().parse().unwrap();
    let begin = std::time::Instant::now();
    // Dead, and at most not yet collected by whoever inherited it.
    let alive = || {
        fs::read_to_string(format!("/proc/{id}/stat"))
            .is_ok_and(|stat| !stat.contains(") Z ") && stat.contains("sleep"))
    };
    while alive() {
        assert!(begin.elapsed() < LONG, "the hook's child lives on");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_hook_may_leave_a_program_behind_say_much_and_read_nothing() {
    let directory = tempfile::tempdir().unwrap();
    // The program keeps stderr open; nobody waits for it.
    script(directory.path(), "network", "sleep 5 & head -c 1000000 /dev/zero | tr '\\0' x >&2; exit 1");
    let hooks = Hooks::new(directory.path().to_owned()).with_patience(LONG);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let input = "x".repeat(1 << 20);
    let error = runtime.block_on(hooks.call("default", Operation::Start, &input)).unwrap_err();
    let How::Status { status: 1, stderr } = error.how else { panic!("{:?}", error.how) };
    assert_eq!(stderr.len(), 4096);
}

#[test]
fn a_hook_reads_the_network_and_the_port() {
    let port =
        HookPort { guest: Some("a<b"), mac: MacAddr([0x52, 0x54, 0, 0, 0, 1]), plug: HookPlug::Network("virbr0") };
    let text = input("<network>\n  <name>default</name>\n</network>\n", Some(port));
    let expected = "<hookData>\n<network>\n  <name>default</name>\n</network>\n<networkport>\n  <owner>\n    \
                    <name>a&lt;b</name>\n  </owner>\n  <mac address='52:54:00:00:00:01'/>\n  <plug type='network' \
                    bridge='virbr0'/>\n</networkport>\n</hookData>\n";
    assert_eq!(text, expected);
    assert!(roxmltree::Document::parse(&text).is_ok());
    assert_eq!(input("<network/>\n", None), "<hookData>\n<network/>\n</hookData>\n");
}
