//! The varlink interface `io.netd.Machine`: what can be asked of a running guest, and what is answered.
//!
//! Values only. `vmm/io.netd.Machine.varlink` is the interface as other languages see it; a test keeps the two together.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use zlink::varlink_service;

/// The interface's name.
pub(crate) const INTERFACE: &str = "io.netd.Machine";
/// The interface in varlink's own language.
pub(crate) const INTERFACE_FILE: &str = include_str!("../../io.netd.Machine.varlink");
/// varlink's own interface, which every service has.
const SERVICE: &str = "org.varlink.service";

/// A call that is of the right form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    GetState,
    Pause,
    Resume,
    PowerButton,
    Reset,
    Quit,
    GetMemory,
    SetMemory { bytes: u64 },
    GetNics,
    SetLink { mac: String, up: bool },
    SetNicLimits { mac: String, receive: Rates, send: Rates },
    GetDisks,
    SetDiskLimits { number: u64, limits: Rates },
    Monitor,
}

/// The methods by name.
const METHODS: [&str; 14] = [
    "GetState",
    "Pause",
    "Resume",
    "PowerButton",
    "Reset",
    "Quit",
    "GetMemory",
    "SetMemory",
    "GetNics",
    "SetLink",
    "SetNicLimits",
    "GetDisks",
    "SetDiskLimits",
    "Monitor",
];

/// What stands on the wire, before its parameters are looked at.
#[derive(Debug, Deserialize)]
pub(super) struct RawCall {
    pub(super) method: String,
    #[serde(default)]
    pub(super) parameters: Option<Value>,
}

/// What a call is about: us, or varlink itself, which is answered here.
#[derive(Debug)]
pub(super) enum Asked {
    Machine(Call),
    Service(Value),
}

impl RawCall {
    /// Reads the call.
    pub(super) fn understand(&self) -> Result<Asked, varlink_service::Error<'static>> {
        let unknown = || varlink_service::Error::MethodNotFound { method: self.method.clone().into() };
        let (interface, name) = self.method.rsplit_once('.').ok_or_else(unknown)?;
        match interface {
            INTERFACE => {
                let name = METHODS.iter().find(|known| **known == name).ok_or_else(unknown)?;
                self.call(name).map(Asked::Machine)
            }
            SERVICE => self.service(name).unwrap_or_else(|| Err(unknown())).map(Asked::Service),
            other => Err(varlink_service::Error::InterfaceNotFound { interface: other.to_owned().into() }),
        }
    }

    fn call(&self, name: &str) -> Result<Call, varlink_service::Error<'static>> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Nothing {}
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Size {
            bytes: u64,
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Link {
            mac: String,
            up: bool,
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct NicLimits {
            mac: String,
            receive: Rates,
            send: Rates,
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct DiskLimits {
            number: u64,
            limits: Rates,
        }
        let simple = |call| self.parameters::<Nothing>().map(|Nothing {}| call);
        match name {
            "GetState" => simple(Call::GetState),
            "Pause" => simple(Call::Pause),
            "Resume" => simple(Call::Resume),
            "PowerButton" => simple(Call::PowerButton),
            "Reset" => simple(Call::Reset),
            "Quit" => simple(Call::Quit),
            "GetMemory" => simple(Call::GetMemory),
            "SetMemory" => self.parameters().map(|Size { bytes }| Call::SetMemory { bytes }),
            "GetNics" => simple(Call::GetNics),
            "SetLink" => self.parameters().map(|Link { mac, up }| Call::SetLink { mac, up }),
            "SetNicLimits" => {
                self.parameters().map(|NicLimits { mac, receive, send }| Call::SetNicLimits { mac, receive, send })
            }
            "GetDisks" => simple(Call::GetDisks),
            "SetDiskLimits" => {
                self.parameters().map(|DiskLimits { number, limits }| Call::SetDiskLimits { number, limits })
            }
            _ => simple(Call::Monitor),
        }
    }

    /// `None` for a method varlink does not have.
    fn service(&self, name: &str) -> Option<Result<Value, varlink_service::Error<'static>>> {
        #[derive(Deserialize)]
        struct Described {
            interface: String,
        }
        Some(match name {
            "GetInfo" => Ok(json!({
                "vendor": "netd",
                "product": "vmm",
                "version": env!("CARGO_PKG_VERSION"),
                "url": "",
                "interfaces": [SERVICE, INTERFACE],
            })),
            "GetInterfaceDescription" => match self.parameters() {
                Ok(Described { interface }) if interface == INTERFACE => Ok(json!({ "description": INTERFACE_FILE })),
                Ok(Described { interface }) => {
                    Err(varlink_service::Error::InterfaceNotFound { interface: interface.into() })
                }
                Err(error) => Err(error),
            },
            _ => return None,
        })
    }

    fn parameters<T: DeserializeOwned>(&self) -> Result<T, varlink_service::Error<'static>> {
        let given = self.parameters.clone().filter(|value| !value.is_null()).unwrap_or_else(|| json!({}));
        serde_json::from_value(given)
            .map_err(|error| varlink_service::Error::InvalidParameter { parameter: error.to_string().into() })
    }
}

/// How the guest is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) name: String,
    pub(crate) state: Running,
    pub(crate) cpus: u8,
    pub(crate) memory: u64,
    pub(crate) pid: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Running {
    Running,
    Paused,
}

/// The guest's memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Memory {
    pub(crate) size: u64,
    pub(crate) wanted: u64,
    pub(crate) actual: u64,
    #[serde(rename = "use")]
    pub(crate) used: Option<MemoryUse>,
}

/// How the guest says it uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MemoryUse {
    pub(crate) free: Option<u64>,
    pub(crate) total: Option<u64>,
    pub(crate) available: Option<u64>,
    pub(crate) caches: Option<u64>,
    pub(crate) swapped_in: Option<u64>,
    pub(crate) swapped_out: Option<u64>,
    pub(crate) major_faults: Option<u64>,
    pub(crate) minor_faults: Option<u64>,
}

/// One direction of a NIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Traffic {
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
    pub(crate) dropped: u64,
    pub(crate) filtered: u64,
}

/// How much may pass in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rates {
    pub(crate) bytes: Option<u64>,
    pub(crate) operations: Option<u64>,
}

/// A disk and its counters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Disk {
    pub(crate) number: usize,
    pub(crate) path: String,
    pub(crate) reads: u64,
    pub(crate) read_bytes: u64,
    pub(crate) writes: u64,
    pub(crate) written_bytes: u64,
    pub(crate) errors: u64,
    pub(crate) limits: Rates,
}

/// A NIC and its counters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Nic {
    pub(crate) network: String,
    pub(crate) mac: String,
    pub(crate) link_up: bool,
    pub(crate) received: Traffic,
    pub(crate) sent: Traffic,
    pub(crate) receive_limits: Rates,
    pub(crate) send_limits: Rates,
}

/// A reply, as it stands in a message's parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum Reply {
    Nothing {},
    State { state: State },
    Memory { memory: Memory },
    Nics { nics: Vec<Nic> },
    Nic { nic: Nic },
    Disks { disks: Vec<Disk> },
    Disk { disk: Disk },
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Event {
    pub(crate) kind: EventKind,
    pub(crate) mac: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum EventKind {
    Started,
    Paused,
    Resumed,
    Reset,
    PowerButton,
    LinkUp,
    LinkDown,
    Ended,
}

impl From<EventKind> for Event {
    fn from(kind: EventKind) -> Self {
        Event { kind, mac: None }
    }
}

/// One reply of `Monitor`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Told {
    pub(crate) event: Option<Event>,
    pub(crate) missed: u64,
}

/// Why a call was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "error", content = "parameters")]
pub(crate) enum Refusal {
    #[serde(rename = "io.netd.Machine.Refused")]
    Refused { message: String },
}

impl Refusal {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Refusal::Refused { message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn understand(text: &str) -> Result<Asked, varlink_service::Error<'static>> {
        serde_json::from_str::<RawCall>(text).unwrap().understand()
    }

    #[test]
    fn the_interface_file_has_every_method_and_no_other() {
        let said = INTERFACE_FILE.lines().filter_map(|line| line.strip_prefix("method ")?.split_once('('));
        assert_eq!(said.map(|(name, _)| name).collect::<Vec<_>>(), METHODS);
        for kind in [EventKind::Started, EventKind::PowerButton, EventKind::LinkDown, EventKind::Ended] {
            assert!(INTERFACE_FILE.contains(&serde_json::to_string(&kind).unwrap()), "{kind:?}");
        }
    }

    #[test]
    fn every_method_is_understood_and_what_is_not_of_its_form_is_refused() {
        for name in METHODS {
            let parameters = match name {
                "SetLink" => r#"{"mac":"a","up":true}"#,
                "SetMemory" => r#"{"bytes":1}"#,
                "SetNicLimits" => r#"{"mac":"a","receive":{"bytes":5},"send":{}}"#,
                "SetDiskLimits" => r#"{"number":0,"limits":{"operations":null}}"#,
                _ => "{}",
            };
            let text = format!(r#"{{"method":"io.netd.Machine.{name}","parameters":{parameters}}}"#);
            let Asked::Machine(call) = understand(&text).unwrap() else { panic!("{name}") };
            assert!(format!("{call:?}").starts_with(name), "{call:?}");
        }
        assert!(matches!(understand(r#"{"method":"io.netd.Machine.Pause"}"#), Ok(Asked::Machine(Call::Pause))));
        for bad in [
            r#"{"method":"io.netd.Machine.Explode"}"#,
            r#"{"method":"Pause"}"#,
            r#"{"method":"io.other.Pause"}"#,
            r#"{"method":"io.netd.Machine.SetLink","parameters":{"mac":"a"}}"#,
            r#"{"method":"io.netd.Machine.Pause","parameters":{"hard":true}}"#,
            r#"{"method":"org.varlink.service.GetInterfaceDescription","parameters":{"interface":"x"}}"#,
        ] {
            assert!(understand(bad).is_err(), "{bad}");
        }
        assert!(matches!(understand(r#"{"method":"org.varlink.service.GetInfo"}"#), Ok(Asked::Service(_))));
    }

    #[test]
    fn replies_are_as_the_interface_says() {
        assert_eq!(serde_json::to_string(&Reply::Nothing {}).unwrap(), "{}");
        let refusal = serde_json::to_value(Refusal::new("no")).unwrap();
        assert_eq!(refusal, json!({"error": "io.netd.Machine.Refused", "parameters": {"message": "no"}}));
    }
}
