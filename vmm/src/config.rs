//! What to run: the words of the command line made into values that can't be wrong.
//!
//! Pure: nothing is opened and nothing is looked up here. Words come from `cli`, a [`VmConfig`] goes to `machine`.
//! Whether a file exists is for the machine to find out.

mod disk;
mod vsock;

use std::{fmt, path::PathBuf, str::FromStr};

pub(crate) use disk::Disk;
pub(crate) use vsock::Vsock;

use crate::layout::{COMMAND_LINE_MAX, MAX_DISKS, MAX_NICS};

/// Most virtual CPUs a guest can have.
pub(crate) const MAX_CPUS: u8 = 64;
/// Most queue pairs a NIC can have; `netd` gives no more.
const MAX_QUEUES: u16 = 256;
/// Longest serial number of a system, in bytes.
pub(crate) const LONGEST_SERIAL: usize = 1024;
/// The command line a kernel gets when the user gives none.
pub(crate) const DEFAULT_COMMAND_LINE: &str = "console=ttyS0";

/// A word on the command line that can't be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("'{0}' is not a guest name: use 1 to 63 letters, digits, '-', '_' or '.', starting with a letter or digit")]
    Name(String),
    #[error("'{0}' is not an amount of memory: give a number with M or G, for example 512M or 2G")]
    Memory(String),
    #[error("{0} bytes of memory is too little: give the guest at least 16M")]
    MemorySmall(u64),
    #[error("{0} bytes of memory is too much: this machine model ends at 4T")]
    MemoryLarge(u64),
    #[error("{0} CPUs is not possible: give 1 to {MAX_CPUS}")]
    Cpus(u32),
    #[error("the kernel command line has {0} bytes, the kernel takes at most {max}: shorten --cmdline", max = COMMAND_LINE_MAX - 1)]
    CommandLineLong(usize),
    #[error("the kernel command line contains a zero byte: leave it out of --cmdline")]
    CommandLineZero,
    #[error("--disk '{0}' names no file: write --disk PATH or --disk PATH,readonly")]
    DiskPath(String),
    #[error("--disk '{word}': unknown option '{option}': the options are readonly, direct, serial=TEXT and queues=N")]
    DiskOption { word: String, option: String },
    #[error("--disk '{word}': option '{option}' is given twice: leave one out")]
    DiskRepeated { word: String, option: String },
    #[error("--disk '{word}': '{value}' is not a serial number: give 1 to 20 letters, digits and signs, no spaces")]
    DiskSerial { word: String, value: String },
    #[error("--disk '{word}': '{value}' is not a number of queues: give 1 to {max}")]
    DiskQueues { word: String, value: String, max: u16 },
    #[error("--disk {} is given twice: a disk can be attached once", .0.display())]
    DiskTwice(PathBuf),
    #[error("{0} disks are too many: a guest can have {MAX_DISKS}")]
    DisksMany(usize),
    #[error("--network '{0}' names no network: write --network NAME, for example --network default")]
    NetworkName(String),
    #[error(
        "--network '{word}': unknown option '{option}': the options are mac=XX:XX:XX:XX:XX:XX, queues=N and portgroup=NAME"
    )]
    NetworkOption { word: String, option: String },
    #[error(
        "--network '{0}': portgroup= names no port group: write portgroup=NAME, or leave it out for the default one"
    )]
    NetworkGroup(String),
    #[error("--network '{word}': option '{option}' is given twice: leave one out")]
    NetworkRepeated { word: String, option: String },
    #[error("--network '{word}': '{value}' is not a number of queues: give 1 to {MAX_QUEUES}")]
    Queues { word: String, value: String },
    #[error("--network '{word}': {cause}")]
    NetworkMac { word: String, cause: Box<ConfigError> },
    #[error("'{0}' is not a MAC address: write six hex pairs, for example 52:54:00:12:34:56")]
    Mac(String),
    #[error("{0} is a multicast MAC address, a NIC can't have it: make the second digit even, for example 52:…")]
    MacMulticast(Mac),
    #[error("MAC address {0} is given to two NICs: give each its own")]
    MacTwice(Mac),
    #[error("{0} NICs are too many: a guest can have {MAX_NICS}")]
    NicsMany(usize),
    #[error("--system-serial takes at most {LONGEST_SERIAL} printable ASCII characters")]
    SystemSerial,
    #[error("--vsock '{word}': {what}")]
    Vsock { word: String, what: String },
    #[error("--console '{0}' is none of stdio, none or the path of a socket to create: a path contains a '/'")]
    Console(String),
}

/// An Ethernet address a NIC can have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mac(pub(crate) [u8; 6]);

impl Mac {
    /// The address of NIC number `index` of the guest called `guest` when the user names none.
    ///
    /// It depends on nothing else, so the guest keeps its lease over restarts and hosts. FNV-1a, 64 bits,
    /// folded to the three bytes that 52:54:00, the prefix of KVM guests, leaves free.
    pub(crate) fn derive(guest: &str, index: usize) -> Self {
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        let index = u32::try_from(index).unwrap_or(u32::MAX).to_le_bytes();
        for byte in guest.bytes().chain([0]).chain(index) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        let folded = hash ^ (hash >> 24) ^ (hash >> 48);
        let [a, b, c, ..] = folded.to_le_bytes();
        Mac([0x52, 0x54, 0x00, a, b, c])
    }
}

impl FromStr for Mac {
    type Err = ConfigError;

    fn from_str(word: &str) -> Result<Self, ConfigError> {
        let bad = || ConfigError::Mac(word.to_owned());
        let mut bytes = [0; 6];
        let mut pairs = word.split(':');
        for byte in &mut bytes {
            let pair = pairs.next().ok_or_else(bad)?;
            if pair.len() != 2 || !pair.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(bad());
            }
            *byte = u8::from_str_radix(pair, 16).map_err(|_| bad())?;
        }
        if pairs.next().is_some() || bytes == [0; 6] {
            return Err(bad());
        }
        let mac = Mac(bytes);
        if bytes[0] & 1 == 1 { Err(ConfigError::MacMulticast(mac)) } else { Ok(mac) }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An amount of guest memory: whole pages, within what the machine model can lay out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemorySize(u64);

impl MemorySize {
    /// Checks the bounds and rounds down to a whole MiB.
    pub(crate) fn from_bytes(bytes: u64) -> Result<Self, ConfigError> {
        if bytes < 16 << 20 {
            return Err(ConfigError::MemorySmall(bytes));
        }
        if bytes > 4 << 40 {
            return Err(ConfigError::MemoryLarge(bytes));
        }
        Ok(MemorySize(bytes & !0xf_ffff))
    }

    /// The amount in bytes.
    pub(crate) fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for MemorySize {
    type Err = ConfigError;

    /// `512M`, `2G`, `1T` (binary units; `iB` or `B` may follow); a bare number is MiB, as virt-install has it.
    fn from_str(word: &str) -> Result<Self, ConfigError> {
        let bad = || ConfigError::Memory(word.to_owned());
        let digits = word.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = word.split_at(digits);
        let number: u64 = number.parse().map_err(|_| bad())?;
        let shift = match unit.to_ascii_lowercase().as_str() {
            "k" | "kib" | "kb" => 10,
            "" | "m" | "mib" | "mb" => 20,
            "g" | "gib" | "gb" => 30,
            "t" | "tib" | "tb" => 40,
            _ => return Err(bad()),
        };
        let bytes = number.checked_mul(1 << shift).ok_or(ConfigError::MemoryLarge(u64::MAX))?;
        Self::from_bytes(bytes)
    }
}

/// One `--network` as written; which MAC it gets is decided once the guest's name is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NicWords {
    /// The network's name.
    pub(crate) network: String,
    /// The MAC, if the user named one.
    pub(crate) mac: Option<Mac>,
    /// Queue pairs.
    pub(crate) queues: u16,
    /// The network's port group, if the user named one.
    pub(crate) portgroup: Option<String>,
}

impl FromStr for NicWords {
    type Err = ConfigError;

    fn from_str(word: &str) -> Result<Self, ConfigError> {
        let mut parts = word.split(',');
        let network = parts.next().filter(|name| !name.is_empty());
        let network = network.ok_or_else(|| ConfigError::NetworkName(word.to_owned()))?.to_owned();
        let (mut mac, mut queues, mut portgroup) = (None, None, None);
        for option in parts {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            let repeated = || ConfigError::NetworkRepeated { word: word.to_owned(), option: key.to_owned() };
            match key {
                "mac" => {
                    let parsed = value
                        .parse()
                        .map_err(|cause| ConfigError::NetworkMac { word: word.to_owned(), cause: Box::new(cause) })?;
                    if mac.replace(parsed).is_some() {
                        return Err(repeated());
                    }
                }
                "queues" => {
                    let parsed = value.parse().ok().filter(|n| (1..=MAX_QUEUES).contains(n));
                    let parsed =
                        parsed.ok_or_else(|| ConfigError::Queues { word: word.to_owned(), value: value.to_owned() })?;
                    if queues.replace(parsed).is_some() {
                        return Err(repeated());
                    }
                }
                "portgroup" if value.is_empty() => return Err(ConfigError::NetworkGroup(word.to_owned())),
                "portgroup" => {
                    if portgroup.replace(value.to_owned()).is_some() {
                        return Err(repeated());
                    }
                }
                _ => return Err(ConfigError::NetworkOption { word: word.to_owned(), option: key.to_owned() }),
            }
        }
        Ok(NicWords { network, mac, queues: queues.unwrap_or(1), portgroup })
    }
}

/// A NIC of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Nic {
    /// The `netd` network it plugs into.
    pub(crate) network: String,
    /// Its MAC.
    pub(crate) mac: Mac,
    /// Queue pairs.
    pub(crate) queues: u16,
    /// The network's port group; the default one if absent.
    pub(crate) portgroup: Option<String>,
}

/// Where COM1 goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Console {
    /// This process's standard input and output.
    Stdio,
    /// Nowhere.
    None,
    /// A unix socket this process creates.
    Socket(PathBuf),
}

impl FromStr for Console {
    type Err = ConfigError;

    fn from_str(word: &str) -> Result<Self, ConfigError> {
        match word {
            "stdio" => Ok(Console::Stdio),
            "none" => Ok(Console::None),
            path if path.contains('/') => Ok(Console::Socket(path.into())),
            _ => Err(ConfigError::Console(word.to_owned())),
        }
    }
}

/// What the user typed, each word understood by itself.
#[derive(Clone, Debug)]
pub(crate) struct Words {
    pub(crate) name: String,
    pub(crate) memory: MemorySize,
    pub(crate) cpus: u32,
    pub(crate) kernel: PathBuf,
    pub(crate) initrd: Option<PathBuf>,
    pub(crate) command_line: Option<String>,
    pub(crate) disks: Vec<Disk>,
    pub(crate) networks: Vec<NicWords>,
    pub(crate) console: Console,
    pub(crate) control: Option<PathBuf>,
    pub(crate) vsock: Option<Vsock>,
    pub(crate) serial: Option<String>,
    pub(crate) sandbox: bool,
}

/// One guest, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VmConfig {
    /// What the guest is called, here and on its networks.
    pub(crate) name: String,
    /// How much RAM.
    pub(crate) memory: MemorySize,
    /// Virtual CPUs, 1 to [`MAX_CPUS`].
    pub(crate) cpus: u8,
    /// bzImage or ELF vmlinux.
    pub(crate) kernel: PathBuf,
    /// Initial RAM disk.
    pub(crate) initrd: Option<PathBuf>,
    /// The kernel's command line.
    pub(crate) command_line: String,
    /// Disks, in slot order.
    pub(crate) disks: Vec<Disk>,
    /// NICs, in slot order.
    pub(crate) nics: Vec<Nic>,
    /// Where COM1 goes.
    pub(crate) console: Console,
    /// The control socket to create.
    pub(crate) control: Option<PathBuf>,
    /// The socket device.
    pub(crate) vsock: Option<Vsock>,
    /// The system's serial number; empty for none.
    pub(crate) serial: String,
    /// The system's UUID: always the same for a name.
    pub(crate) uuid: [u8; 16],
    /// The process gives up what the guest does not need.
    pub(crate) sandbox: bool,
}

impl VmConfig {
    /// Checks what no single word can tell.
    pub(crate) fn new(words: Words) -> Result<Self, ConfigError> {
        let cpus = u8::try_from(words.cpus).ok().filter(|n| (1..=MAX_CPUS).contains(n));
        let cpus = cpus.ok_or(ConfigError::Cpus(words.cpus))?;
        check_name(&words.name)?;
        let command_line = words.command_line.unwrap_or_else(|| DEFAULT_COMMAND_LINE.to_owned());
        if command_line.len() >= COMMAND_LINE_MAX {
            return Err(ConfigError::CommandLineLong(command_line.len()));
        }
        if command_line.contains('\0') {
            return Err(ConfigError::CommandLineZero);
        }
        if words.disks.len() > MAX_DISKS {
            return Err(ConfigError::DisksMany(words.disks.len()));
        }
        if let Some(path) = first_repeated(words.disks.iter().map(|disk| disk.path.as_path())) {
            return Err(ConfigError::DiskTwice(path.to_owned()));
        }
        if words.networks.len() > MAX_NICS {
            return Err(ConfigError::NicsMany(words.networks.len()));
        }
        let nics = nics(&words.name, words.networks);
        if let Some(mac) = first_repeated(nics.iter().map(|nic| nic.mac)) {
            return Err(ConfigError::MacTwice(mac));
        }
        let serial = words.serial.unwrap_or_default();
        if serial.len() > LONGEST_SERIAL || !serial.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
            return Err(ConfigError::SystemSerial);
        }
        let uuid =
            uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, format!("vmm {}", words.name).as_bytes()).into_bytes();
        Ok(VmConfig {
            name: words.name,
            memory: words.memory,
            cpus,
            kernel: words.kernel,
            initrd: words.initrd,
            command_line,
            disks: words.disks,
            nics,
            console: words.console,
            control: words.control,
            vsock: words.vsock,
            serial,
            uuid,
            sandbox: words.sandbox,
        })
    }
}

fn nics(guest: &str, words: Vec<NicWords>) -> Vec<Nic> {
    let one = |(index, NicWords { network, mac, queues, portgroup })| {
        let mac = mac.unwrap_or_else(|| Mac::derive(guest, index));
        Nic { network, mac, queues, portgroup }
    };
    words.into_iter().enumerate().map(one).collect()
}

/// A name must do as a host name in DNS, a directory and a word on a command line.
fn check_name(name: &str) -> Result<(), ConfigError> {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let rest = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if first && rest && name.len() <= 63 { Ok(()) } else { Err(ConfigError::Name(name.to_owned())) }
}

fn first_repeated<T: PartialEq + Copy>(items: impl Iterator<Item = T>) -> Option<T> {
    let mut seen = Vec::new();
    for item in items {
        if seen.contains(&item) {
            return Some(item);
        }
        seen.push(item);
    }
    None
}

#[cfg(test)]
mod tests;
