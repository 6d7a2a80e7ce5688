//! EDGE: a call with much text in it, on a connection of its own. The transport's own way of writing takes a time that
//! grows with the square of the length: seconds for a megabyte, and all else on the thread waits.

use std::{io, path::Path};

use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use crate::{ClientError, Error, INTERFACE};

/// Text of more bytes than this goes this way.
pub(crate) const LARGE: usize = 16 << 10;

/// The longest reply that is taken, in bytes.
const LONGEST_REPLY: usize = 64 << 20;

#[derive(Serialize)]
struct Call<'a, T> {
    method: String,
    parameters: &'a T,
}

#[derive(serde::Deserialize)]
struct Reply<T> {
    parameters: T,
}

/// Calls a method and gives its reply.
pub(crate) async fn call<P: Serialize, R: DeserializeOwned>(
    path: &Path,
    method: &str,
    parameters: &P,
) -> Result<R, ClientError> {
    let reply = exchange(path, method, parameters).await.map_err(|cause| ClientError::Transport(cause.into()))?;
    if let Ok(Reply { parameters }) = serde_json::from_slice(&reply) {
        return Ok(parameters);
    }
    match serde_json::from_slice::<Error>(&reply) {
        Ok(error) => Err(ClientError::Refused(error)),
        Err(cause) => Err(ClientError::Transport(io::Error::from(cause).into())),
    }
}

async fn exchange<P: Serialize>(path: &Path, method: &str, parameters: &P) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(path).await?;
    let mut message = serde_json::to_vec(&Call { method: format!("{INTERFACE}.{method}"), parameters })?;
    message.push(0);
    stream.write_all(&message).await?;
    let mut reply = Vec::new();
    while reply.last() != Some(&0) {
        if stream.read_buf(&mut reply).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if reply.len() > LONGEST_REPLY {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
    }
    reply.pop();
    Ok(reply)
}
