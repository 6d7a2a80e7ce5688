//! What an installed netd brings besides its programs: manual pages, completion for three shells, a systemd unit.

use std::{fs, process::Output};

use anyhow::{Context, Result, ensure};
use tests::{
    daemon::Daemon,
    paths,
    space::{Space, told},
    station::Station,
};

/// A network's name that a shell would obey.
const ODD: &str = "lab $(touch obeyed) x";

fn run(space: &Space, tool: &str, args: &[&str]) -> Result<Output> {
    let output = space.run(tool, args)?;
    ensure!(output.status.success(), "{tool} {}: {}", args.join(" "), told(&output));
    Ok(output)
}

#[test]
fn every_verb_has_a_manual_page_that_no_formatter_complains_of() -> Result<()> {
    let space = Space::new("man")?;
    let pages = space.dir().join("man");
    for program in ["netd", "vmm"] {
        let output = space.command(paths::program(program)?).arg("man").arg(&pages).output()?;
        ensure!(output.status.success(), "{program} man: {}", told(&output));
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(&pages)? {
        let path = entry?.path();
        let page = path.to_str().context("UTF-8")?;
        let output = run(&space, "man", &["--warnings", "-l", page])?;
        let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(complaints, "", "{page}");
        run(&space, "mandoc", &["-T", "lint", "-W", "error", page])?;
        names.push(path.file_name().context("a name")?.to_string_lossy().into_owned());
    }
    for wanted in ["netd.1", "netd-net-start.1", "netd-net-dhcp-leases.1", "netd-port-exec.1", "vmm.1", "vmm-run.1"] {
        assert!(names.iter().any(|name| name == wanted), "no {wanted}: {names:?}");
    }
    assert!(!names.iter().any(|name| name.contains("complete.1") || name.contains("help.1")), "{names:?}");
    Ok(())
}

/// A host with networks and a guest to complete the names of, and netd in the PATH.
fn host() -> Result<(Daemon, Station, String)> {
    let netd = Daemon::new("complete")?;
    netd.ok(&["net-start", "default"])?;
    netd.create(&format!("<network><name>{ODD}</name></network>"))?;
    let station = Station::plug(&netd, "default", "webserver")?;
    let programs = netd.host.dir().join("bin");
    fs::create_dir(&programs)?;
    std::os::unix::fs::symlink(paths::program("netd")?, programs.join("netd"))?;
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", programs.display());
    Ok((netd, station, path))
}

fn in_shell(netd: &Daemon, path: &str, shell: &str, script: &str) -> Result<String> {
    let mut command = netd.host.command(paths::tool(shell)?);
    command
        .current_dir(netd.host.dir())
        .env("PATH", path)
        .env("NETD_SOCKET", netd.socket())
        .env("HOME", netd.host.dir());
    let output = command.args(["-c", script]).output()?;
    ensure!(output.status.success(), "{shell}: {}", told(&output));
    assert!(!netd.host.dir().join("obeyed").exists(), "{shell} obeyed a network's name");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn bash_completes_verbs_flags_and_the_names_that_the_daemon_knows() -> Result<()> {
    let (mut netd, station, path) = host()?;
    let complete = |words: &str| -> Result<Vec<String>> {
        let script = format!(
            "source <(netd completion bash)\nCOMP_WORDS=({words})\nCOMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n\
             _netd_with_names netd \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD - 1]}}\"\n\
             printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        Ok(in_shell(&netd, &path, "bash", &script)?.lines().map(str::to_owned).collect())
    };
    assert_eq!(complete("netd net-dh")?, ["net-dhcp-leases"]);
    assert_eq!(complete("netd net-list --inact")?, ["--inactive"]);
    assert_eq!(complete("netd net-start def")?, ["default"]);
    assert_eq!(complete("netd -o json net-info l")?, [r"lab\ \$\(touch\ obeyed\)\ x"]);
    assert_eq!(complete("netd net-info --network d")?, ["default"]);
    assert_eq!(complete("netd domifaddr w")?, ["webserver"]);
    assert_eq!(complete("netd port-info vn")?, ["vnet0"]);
    assert_eq!(complete("netd forward-add default tcp/80 w")?, ["webserver"]);
    assert_eq!(complete("netd port exec d")?, ["default"]);
    drop(station);
    netd.ok(&["net-destroy", ODD])?;
    netd.finish()
}

#[test]
fn fish_completes_them_too_and_zsh_takes_its_script() -> Result<()> {
    let (mut netd, station, path) = host()?;
    let fish = |words: &str| {
        let script = format!("netd completion fish | source; complete -C '{words}'");
        in_shell(&netd, &path, "fish", &script)
    };
    assert!(fish("netd net-start d")?.contains("default"));
    assert!(fish("netd net-start ")?.contains("lab $(touch obeyed) x"));
    assert!(fish("netd domifaddr ")?.contains("webserver"));
    assert!(fish("netd port exec ")?.contains("default"));
    assert!(fish("netd net-dhcp")?.contains("net-dhcp-leases"));

    let script = in_shell(&netd, &path, "zsh", "netd completion zsh")?;
    for wanted in ["::network:_netd_names networks", "NETWORK:_netd_names networks", "_netd_names() {"] {
        assert!(script.contains(wanted), "{wanted}: {script}");
    }
    // compadd stands in for the line editor, which is not there without a terminal.
    let names = "autoload -U compinit && compinit -u -d ./dump\nsource <(netd completion zsh)\n\
                 _call_program() { shift; \"$@\" }\ncompadd() { print -l -- ${(P)2} }\n_netd_names networks\n";
    assert_eq!(in_shell(&netd, &path, "zsh", names)?, "default\nlab $(touch obeyed) x\n");
    drop(station);
    netd.ok(&["net-destroy", ODD])?;
    netd.finish()
}

#[test]
fn the_unit_is_one_and_its_limits_are_enough_for_the_daemon() -> Result<()> {
    let mut netd = Daemon::new("unit")?;
    netd.stop()?;
    let unit = fs::read_to_string(paths::repository().join("packaging/netd.service"))?;
    let here = unit.replace("/usr/local/bin/netd", paths::program("netd")?.to_str().context("UTF-8")?);
    // Its manual page is not installed on a machine that only builds.
    let here: String =
        here.lines().filter(|line| !line.starts_with("Documentation=")).map(|line| format!("{line}\n")).collect();
    let file = netd.host.dir().join("netd-under-test.service");
    fs::write(&file, here)?;
    let output = run(&netd.host, "systemd-analyze", &["verify", file.to_str().context("UTF-8")?])?;
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "systemd-analyze verify complains");

    // What of the unit can be had without systemd: its capabilities, and no new privileges.
    let line = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).context("capabilities")?;
    let kept = line.split(' ').map(|name| format!("+{}", name.trim_start_matches("CAP_").to_lowercase()));
    let set = format!("-all,{}", kept.collect::<Vec<_>>().join(","));
    netd.start_through(&["setpriv", "--no-new-privs", "--bounding-set", &set, "--inh-caps=-all"])?;
    let status = netd.host.sh(&format!("grep CapBnd /proc/{}/status", netd.pid()?))?;
    assert!(!status.contains("1ffffffffff"), "{status}");
    netd.ok(&["net-start", "default"])?;
    let station = Station::plug(&netd, "default", "vm1")?;
    station.lease()?;
    netd.ok(&["forward-add", "default", "tcp/2222", "vm1:22"])?;
    drop(station);
    netd.finish()
}
