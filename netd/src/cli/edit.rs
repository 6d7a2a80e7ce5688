//! EDGE: `net-edit` and `--edit`: the user's editor, a temporary file, the terminal.

use std::{
    env,
    ffi::OsString,
    fs,
    io::{self, BufRead, IsTerminal, Write},
    path::Path,
    process::Command,
};

use netd_api::Client;
use serde_json::json;

use super::{
    Output,
    args::NetworkArg,
    connect::connect,
    failure::{About, Failure, without_number},
};

pub(super) async fn network(socket: &Path, network: &NetworkArg) -> Result<Output, Failure> {
    let name = network.name();
    let failed = |e| Failure::client("", About::Network(name), &e);
    let mut client = connect(socket).await.map_err(failed)?;
    let before = client.dump_xml(name, true).await.map_err(failed)?.xml;
    let file = temporary_file(&before, ".xml")?;
    loop {
        let text = match run_editor(file.path()).and_then(|()| read(file.path())) {
            Ok(text) => text,
            Err(failure) => return Err(keep(file, &before, failure)),
        };
        if text == before {
            return Ok(Output::done(format!("Network {name} XML configuration not changed.\n"), json!(null)));
        }
        match define(&mut client, name, &before, text).await {
            Ok(output) => return Ok(output),
            Err(failure) if ask_again(&failure) => {}
            Err(failure) => return Err(keep(file, &before, failure)),
        }
    }
}

/// A text as the user's editor leaves it.
pub(super) fn text(before: &str, suffix: &str) -> Result<String, Failure> {
    let file = temporary_file(before, suffix)?;
    run_editor(file.path())?;
    read(file.path())
}

async fn define(client: &mut Client, name: &str, before: &str, text: String) -> Result<Output, Failure> {
    let failed = |e| Failure::client(format!("Failed to define network {name}"), About::Network(name), &e);
    let now = client.dump_xml(name, true).await.map_err(failed)?.xml;
    if now != before {
        return Err(Failure::new("The XML configuration was changed by another user."));
    }
    let reply = client.define_network(text).await.map_err(failed)?;
    let text = format!("Network {} XML configuration edited.\n", reply.network.name);
    Ok(Output::done(text, json!(reply.network)).with_notices(reply.notices))
}

fn temporary_file(text: &str, suffix: &str) -> Result<tempfile::NamedTempFile, Failure> {
    let make = || {
        let mut file = tempfile::Builder::new().prefix("netd-").suffix(suffix).tempfile()?;
        file.write_all(text.as_bytes())?;
        Ok(file)
    };
    make().map_err(|cause: io::Error| {
        let line = format!("Failed to create a temporary file in {}", env::temp_dir().display());
        Failure::new(line).because(without_number(&cause))
    })
}

fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|cause| Failure::file(path, &cause))
}

/// By the shell, because people put arguments into $EDITOR.
fn run_editor(path: &Path) -> Result<(), Failure> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty());
    let editor = set("VISUAL").or_else(|| set("EDITOR")).unwrap_or_else(|| "vi".into());
    let mut script = OsString::from(&editor);
    script.push(" \"$1\"");
    let status = Command::new("/bin/sh").arg("-c").arg(script).arg("sh").arg(path).status();
    let line = format!("The editor '{}' failed", editor.display());
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::new(line).because(status.to_string())),
        Err(cause) => Err(Failure::new(line).because(without_number(&cause))),
    }
}

/// Shows what is wrong and asks whether to go on; no where there is nobody to ask.
fn ask_again(failure: &Failure) -> bool {
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return false;
    }
    eprint!("{failure}Edit again? [Y/n] ");
    let mut answer = String::new();
    match io::stdin().lock().read_line(&mut answer) {
        Ok(1..) => matches!(answer.trim(), "" | "y" | "Y" | "yes"),
        _ => false,
    }
}

/// What the user wrote is not lost with the error.
fn keep(file: tempfile::NamedTempFile, before: &str, failure: Failure) -> Failure {
    let changed = fs::read_to_string(file.path()).is_ok_and(|text| text != before);
    if !changed {
        return failure;
    }
    match file.into_temp_path().keep() {
        Ok(path) => failure.with_note(kept(&path)),
        Err(_) => failure,
    }
}

fn kept(path: &Path) -> String {
    format!("what you wrote is in {0}; mend it there and use 'netd net-define {0}'", path.display())
}
