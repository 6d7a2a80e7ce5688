//! EDGE: the other end of a guest's control socket: `vmm control`.

use std::{
    io::{self, BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::api::INTERFACE;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error(
        "failed to connect to the guest's control socket {}: {cause}: is it the path given to --control, and does the guest run?",
        path.display()
    )]
    Connect { path: PathBuf, cause: io::Error },
    #[error("the guest stopped answering: {0}")]
    Transport(io::Error),
    #[error("{0}")]
    Refused(String),
}

/// Calls `method` and hands each reply to `each`. With `more` there are replies until the guest ends or `each` fails.
pub(crate) fn call(
    path: &Path,
    method: &str,
    parameters: &Value,
    more: bool,
    mut each: impl FnMut(&Value) -> io::Result<()>,
) -> Result<(), ClientError> {
    let connected = UnixStream::connect(path);
    let mut stream = connected.map_err(|cause| ClientError::Connect { path: path.to_owned(), cause })?;
    let mut call = json!({ "method": format!("{INTERFACE}.{method}"), "parameters": parameters });
    if more {
        call["more"] = true.into();
    }
    let mut bytes = call.to_string().into_bytes();
    bytes.push(0);
    stream.write_all(&bytes).map_err(ClientError::Transport)?;
    let mut replies = BufReader::new(stream);
    loop {
        let mut bytes = Vec::new();
        replies.read_until(0, &mut bytes).map_err(ClientError::Transport)?;
        if bytes.pop() != Some(0) {
            // A guest's end is the end of its events.
            return if more { Ok(()) } else { Err(ClientError::Transport(io::ErrorKind::UnexpectedEof.into())) };
        }
        let reply: Value = serde_json::from_slice(&bytes).map_err(|e| ClientError::Transport(e.into()))?;
        if let Some(error) = reply["error"].as_str() {
            let message = reply["parameters"]["message"].as_str();
            let words = || format!("{error} {}", reply["parameters"]);
            return Err(ClientError::Refused(message.map_or_else(words, str::to_owned)));
        }
        each(&reply["parameters"]).map_err(ClientError::Transport)?;
        if reply["continues"] != Value::Bool(true) {
            return Ok(());
        }
    }
}
