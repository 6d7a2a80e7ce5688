//! The procedures that are served, as data: number, name, and who may call it.
//!
//! Numbers, names and the order of arguments are facts of the interface between libvirt's clients and its daemons. What is
//! not here is answered with "unknown procedure", and clients do as with an older daemon.

/// When and by whom a procedure may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// At any time: it is about the connection itself.
    Always,
    /// On an open connection; it changes nothing.
    Read,
    /// On an open connection that is not read-only. The name is the function's in libvirt's API, for the refusal.
    Change(&'static str),
}

macro_rules! procedures {
    ($($number:literal $name:ident $wire:literal $access:expr;)*) => {
        /// A procedure of the remote program.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Procedure {
            $(#[doc = $wire] $name = $number,)*
        }

        impl Procedure {
            /// All of them, by number.
            #[cfg(test)]
            pub(crate) const ALL: &[Procedure] = &[$(Procedure::$name,)*];

            /// The procedure of this number, if it is served.
            pub(crate) fn of(number: i32) -> Option<Self> {
                match number {
                    $($number => Some(Procedure::$name),)*
                    _ => None,
                }
            }

            /// Its name in the protocol.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Procedure::$name => $wire,)*
                }
            }

            /// When and by whom it may be called.
            pub(crate) fn access(self) -> Access {
                use Access::{Always, Change, Read};
                match self {
                    $(Procedure::$name => $access,)*
                }
            }
        }
    };
}

procedures! {
    1 ConnectOpen "CONNECT_OPEN" Always;
    2 ConnectClose "CONNECT_CLOSE" Always;
    3 ConnectGetType "CONNECT_GET_TYPE" Read;
    4 ConnectGetVersion "CONNECT_GET_VERSION" Read;
    6 NodeGetInfo "NODE_GET_INFO" Read;
    7 ConnectGetCapabilities "CONNECT_GET_CAPABILITIES" Read;
    21 ConnectListDefinedDomains "CONNECT_LIST_DEFINED_DOMAINS" Read;
    22 DomainLookupById "DOMAIN_LOOKUP_BY_ID" Read;
    23 DomainLookupByName "DOMAIN_LOOKUP_BY_NAME" Read;
    24 DomainLookupByUuid "DOMAIN_LOOKUP_BY_UUID" Read;
    25 ConnectNumOfDefinedDomains "CONNECT_NUM_OF_DEFINED_DOMAINS" Read;
    36 ConnectListDefinedNetworks "CONNECT_LIST_DEFINED_NETWORKS" Read;
    37 ConnectListDomains "CONNECT_LIST_DOMAINS" Read;
    38 ConnectListNetworks "CONNECT_LIST_NETWORKS" Read;
    39 NetworkCreate "NETWORK_CREATE" Change("virNetworkCreate");
    40 NetworkCreateXml "NETWORK_CREATE_XML" Change("virNetworkCreateXML");
    41 NetworkDefineXml "NETWORK_DEFINE_XML" Change("virNetworkDefineXML");
    42 NetworkDestroy "NETWORK_DESTROY" Change("virNetworkDestroy");
    43 NetworkGetXmlDesc "NETWORK_GET_XML_DESC" Read;
    44 NetworkGetAutostart "NETWORK_GET_AUTOSTART" Read;
    45 NetworkGetBridgeName "NETWORK_GET_BRIDGE_NAME" Read;
    46 NetworkLookupByName "NETWORK_LOOKUP_BY_NAME" Read;
    47 NetworkLookupByUuid "NETWORK_LOOKUP_BY_UUID" Read;
    48 NetworkSetAutostart "NETWORK_SET_AUTOSTART" Change("virNetworkSetAutostart");
    49 NetworkUndefine "NETWORK_UNDEFINE" Change("virNetworkUndefine");
    50 ConnectNumOfDefinedNetworks "CONNECT_NUM_OF_DEFINED_NETWORKS" Read;
    51 ConnectNumOfDomains "CONNECT_NUM_OF_DOMAINS" Read;
    52 ConnectNumOfNetworks "CONNECT_NUM_OF_NETWORKS" Read;
    59 ConnectGetHostname "CONNECT_GET_HOSTNAME" Read;
    60 ConnectSupportsFeature "CONNECT_SUPPORTS_FEATURE" Always;
    66 AuthList "AUTH_LIST" Always;
    71 ConnectNumOfStoragePools "CONNECT_NUM_OF_STORAGE_POOLS" Read;
    72 ConnectListStoragePools "CONNECT_LIST_STORAGE_POOLS" Read;
    73 ConnectNumOfDefinedStoragePools "CONNECT_NUM_OF_DEFINED_STORAGE_POOLS" Read;
    74 ConnectListDefinedStoragePools "CONNECT_LIST_DEFINED_STORAGE_POOLS" Read;
    110 ConnectGetUri "CONNECT_GET_URI" Read;
    149 ConnectIsSecure "CONNECT_IS_SECURE" Read;
    152 NetworkIsActive "NETWORK_IS_ACTIVE" Read;
    153 NetworkIsPersistent "NETWORK_IS_PERSISTENT" Read;
    157 ConnectGetLibVersion "CONNECT_GET_LIB_VERSION" Read;
    178 ConnectNumOfNwfilters "CONNECT_NUM_OF_NWFILTERS" Read;
    179 ConnectListNwfilters "CONNECT_LIST_NWFILTERS" Read;
    273 ConnectListAllDomains "CONNECT_LIST_ALL_DOMAINS" Read;
    283 ConnectListAllNetworks "CONNECT_LIST_ALL_NETWORKS" Read;
    291 NetworkUpdate "NETWORK_UPDATE" Change("virNetworkUpdate");
    313 ConnectNetworkEventRegisterAny "CONNECT_NETWORK_EVENT_REGISTER_ANY" Read;
    314 ConnectNetworkEventDeregisterAny "CONNECT_NETWORK_EVENT_DEREGISTER_ANY" Read;
    341 NetworkGetDhcpLeases "NETWORK_GET_DHCP_LEASES" Read;
    360 ConnectRegisterCloseCallback "CONNECT_REGISTER_CLOSE_CALLBACK" Read;
    361 ConnectUnregisterCloseCallback "CONNECT_UNREGISTER_CLOSE_CALLBACK" Read;
    404 NetworkListAllPorts "NETWORK_LIST_ALL_PORTS" Read;
    405 NetworkPortLookupByUuid "NETWORK_PORT_LOOKUP_BY_UUID" Read;
    406 NetworkPortCreateXml "NETWORK_PORT_CREATE_XML" Change("virNetworkPortCreateXML");
    409 NetworkPortGetXmlDesc "NETWORK_PORT_GET_XML_DESC" Read;
    410 NetworkPortDelete "NETWORK_PORT_DELETE" Change("virNetworkPortDelete");
    432 NetworkDefineXmlFlags "NETWORK_DEFINE_XML_FLAGS" Change("virNetworkDefineXMLFlags");
    437 NetworkCreateXmlFlags "NETWORK_CREATE_XML_FLAGS" Change("virNetworkCreateXMLFlags");
    444 NetworkSetMetadata "NETWORK_SET_METADATA" Change("virNetworkSetMetadata");
    445 NetworkGetMetadata "NETWORK_GET_METADATA" Read;
}

/// The event of a network's life.
pub(crate) const NETWORK_EVENT_LIFECYCLE: i32 = 315;

/// The event of another title, description or element of metadata.
pub(crate) const NETWORK_EVENT_METADATA: i32 = 446;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_again_and_what_is_not_here_is_not() {
        for procedure in Procedure::ALL {
            assert_eq!(Procedure::of(*procedure as i32), Some(*procedure), "{}", procedure.name());
        }
        for number in [0, -1, 5, 70, 443, 454, i32::MAX] {
            assert_eq!(Procedure::of(number), None, "{number}");
        }
    }

    #[test]
    fn the_table_in_the_documentation_is_this_one() {
        let text = include_str!("../../../docs/libvirt.md");
        let rows = text.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | "));
        let rows = rows.filter_map(|(number, rest)| Some((number.parse().ok()?, rest.split_once(" |")?.0.to_owned())));
        let documented: Vec<(i32, String)> = rows.collect();
        let star = |procedure: &Procedure| if let Access::Change(_) = procedure.access() { " *" } else { "" };
        let ours = Procedure::ALL.iter().map(|one| (*one as i32, format!("{}{}", one.name(), star(one))));
        assert_eq!(documented, ours.collect::<Vec<_>>());
    }

    #[test]
    fn what_a_client_may_do_without_changing_anything_is_its_name_too() {
        for procedure in Procedure::ALL {
            let changes = ["CREATE", "DEFINE_XML", "DESTROY", "UNDEFINE", "SET_", "UPDATE", "DELETE"];
            let by_name = changes.iter().any(|word| procedure.name().contains(word));
            assert_eq!(matches!(procedure.access(), Access::Change(_)), by_name, "{}", procedure.name());
        }
    }
}
