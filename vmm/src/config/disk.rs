//! One `--disk`.

use std::{path::PathBuf, str::FromStr};

use super::ConfigError;

/// Most queues a disk can have.
const MAX_QUEUES: u16 = 64;
/// Longest serial number, in bytes (virtio 1.2 §5.2.6).
const LONGEST_SERIAL: usize = 20;

/// A disk of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Disk {
    /// The raw image or block device.
    pub(crate) path: PathBuf,
    /// The guest may not write.
    pub(crate) readonly: bool,
    /// Read and written past the host's page cache.
    pub(crate) direct: bool,
    /// What the guest knows it by, if not by its file's name.
    pub(crate) serial: Option<String>,
    /// Queues, each with a thread.
    pub(crate) queues: u16,
}

impl FromStr for Disk {
    type Err = ConfigError;

    fn from_str(word: &str) -> Result<Self, ConfigError> {
        let mut parts = word.split(',');
        let path = parts.next().filter(|path| !path.is_empty());
        let path = PathBuf::from(path.ok_or_else(|| ConfigError::DiskPath(word.to_owned()))?);
        let (mut readonly, mut direct, mut serial, mut queues) = (None, None, None, None);
        for option in parts {
            let unknown = || ConfigError::DiskOption { word: word.to_owned(), option: option.to_owned() };
            let (key, value) = option.split_once('=').map_or((option, None), |(key, value)| (key, Some(value)));
            let repeated = match (key, value) {
                ("readonly", None) => readonly.replace(true).is_some(),
                ("direct", None) => direct.replace(true).is_some(),
                ("serial", Some(value)) => {
                    let fits = (1..=LONGEST_SERIAL).contains(&value.len())
                        && value.bytes().all(|byte| byte.is_ascii_graphic());
                    if !fits {
                        return Err(ConfigError::DiskSerial { word: word.to_owned(), value: value.to_owned() });
                    }
                    serial.replace(value.to_owned()).is_some()
                }
                ("queues", Some(value)) => {
                    let parsed = value.parse().ok().filter(|n| (1..=MAX_QUEUES).contains(n));
                    let wrong =
                        || ConfigError::DiskQueues { word: word.to_owned(), value: value.to_owned(), max: MAX_QUEUES };
                    queues.replace(parsed.ok_or_else(wrong)?).is_some()
                }
                _ => return Err(unknown()),
            };
            if repeated {
                return Err(ConfigError::DiskRepeated { word: word.to_owned(), option: key.to_owned() });
            }
        }
        let (readonly, direct) = (readonly.unwrap_or(false), direct.unwrap_or(false));
        Ok(Disk { path, readonly, direct, serial, queues: queues.unwrap_or(1) })
    }
}
