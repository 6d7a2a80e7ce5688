//! One line per thing that is refused: the text, and the error as the user reads it.

use crate::xml::parse;

/// A network with `inside` from line 2 on.
fn network(inside: &str) -> String {
    format!("<network><name>a</name>\n{inside}</network>")
}

fn error(text: &str) -> String {
    match parse(text) {
        Ok(network) => panic!("accepted: {text}\n{network:?}"),
        Err(error) => error.to_string(),
    }
}

fn check(cases: &[(&str, &str)]) {
    for (inside, expected) in cases {
        assert_eq!(error(&network(inside)), *expected, "{inside}");
    }
}

#[test]
fn what_is_not_a_network() {
    for (text, expected) in [
        ("", "XML error: line 1: the document is empty"),
        ("hello", "XML error: line 1: unknown token"),
        ("<domain/>", "XML error: line 1: <domain>: expecting root element of 'network', not 'domain'"),
        ("<network>\n<name>x</name>\n", "XML error: line 2: <name>: the text ends in the middle of an element"),
        ("<network>\n<forward></network>", "XML error: line 2: <forward>: expected 'forward' tag, not 'network'"),
        ("<network>\n<ip address='10.0.0.1'\n</network>", "XML error: line 3: <ip>: invalid name token"),
        ("<network a='1' a='2'/>", "XML error: line 1: <network>: attribute 'a' is already defined"),
        ("<network><forward/></network>", "XML error: line 1: <network>: missing name information"),
        ("<network><name></name></network>", "XML error: line 1: <name>: missing name information"),
        ("<network><name>a/b</name></network>", "XML error: line 1: <name>: 'a/b' contains '/'"),
        ("<network><name>..</name></network>", "XML error: line 1: <name>: '..' cannot be a name"),
        ("<network><name>a</name>\n<name>b</name></network>", "XML error: line 2: <name>: there can be only one"),
        ("<network><name><b/></name></network>", "XML error: line 1: <b>: unknown element <b>; it can have none"),
        (
            "<network><name x='1'>a</name></network>",
            "XML error: line 1: <name>: unknown attribute 'x'; it can have none",
        ),
        (
            "<!DOCTYPE network [<!ENTITY a 'b'>]><network/>",
            "XML error: line 1: a document type (<!DOCTYPE>) is not allowed",
        ),
        ("<network><name>&a;</name></network>", "XML error: line 1: <name>: unknown entity reference 'a'"),
    ] {
        assert_eq!(error(text), expected, "{text}");
    }
}

#[test]
fn what_netd_does_not_do() {
    let pci = "netd does not hand PCI devices (SR-IOV virtual functions) to guests; forward mode 'passthrough' gives a \
               guest a network interface of the host for itself";
    for (inside, place, sentence) in [
        ("<forward mode='hostdev' managed='yes'/>", "forward", pci),
        ("<forward managed='no'/>", "forward", pci),
        ("<forward mode='passthrough'><pf dev='eth0'/></forward>", "pf", pci),
        ("<forward mode='passthrough'><address type='pci' domain='0'/></forward>", "address", pci),
        ("<forward mode='bridge'><driver name='vfio'/></forward>", "driver", pci),
        (
            "<virtualport type='openvswitch'/>",
            "virtualport",
            "type 'openvswitch' needs Open vSwitch, which netd does not use",
        ),
        (
            "<portgroup name='a'><virtualport type='802.1Qbg'><parameters managerid='1'/></virtualport></portgroup>",
            "virtualport",
            "type '802.1Qbg' needs a switch that netd would have to negotiate with, which it does not",
        ),
        ("<virtualport type='midonet'/>", "virtualport", "type 'midonet' needs MidoNet, which netd does not use"),
        ("<virtualport/>", "virtualport", "netd has no port profiles of virtual switches"),
        ("<lxc:a xmlns:lxc='http://x'/>", "network", "<lxc:a> is of a name space that netd does not know"),
    ] {
        let error = parse(&network(inside)).unwrap_err();
        assert_eq!(error.to_string(), format!("unsupported configuration: line 2: <{place}>: {sentence}"), "{inside}");
        assert!(error.is_unsupported());
    }
    check(&[(
        "<virtualport type='vmware'/>",
        "XML error: line 2: <virtualport>: type is 'vmware', which is not openvswitch, midonet, 802.1Qbg or 802.1Qbh; \
         and netd has none of them",
    )]);
}

#[test]
fn metadata_that_cannot_be_kept() {
    check(&[
        ("<title>a\nb</title>", "XML error: line 2: <title>: the title can't contain newlines"),
        ("<title/><title/>", "XML error: line 2: <title>: there can be only one"),
        ("<description><b/></description>", "XML error: line 2: <b>: unknown element <b>; it can have none"),
        (
            "<metadata>\n<app/></metadata>",
            "XML error: line 3: <app>: what other programs keep here needs a name space (xmlns) of its own",
        ),
        (
            "<metadata><a:b xmlns:a='x'/>\n<c:d xmlns:c='x'/></metadata>",
            "XML error: line 3: <c:d>: the name space 'x' is there twice",
        ),
        ("<metadata>note</metadata>", "XML error: line 2: <metadata>: text 'note' where only elements can be"),
        ("<metadata a='b'/>", "XML error: line 2: <metadata>: unknown attribute 'a'; it can have none"),
    ]);
}

#[test]
fn what_does_not_go_with_the_mode() {
    let elsewhere = "its guests are on a network of somebody else, where netd has no address and serves nothing";
    let bridged = |inside: &str| format!("<forward mode='bridge'/><bridge name='br0'/>\n{inside}");
    let direct = |inside: &str| format!("<forward mode='vepa' dev='eth0'/>\n{inside}");
    let own = "the bridge or interface is the host's and keeps its own";
    for (text, mode, element, why) in [
        (bridged("<ip address='10.0.0.1' prefix='24'/>"), "bridge", "ip", elsewhere),
        (direct("<ip address='10.0.0.1' prefix='24'/>"), "vepa", "ip", elsewhere),
        (bridged("<route address='::' family='ipv6' gateway='::1'/>"), "bridge", "route", elsewhere),
        (bridged("<dns/>"), "bridge", "dns", elsewhere),
        (direct("<domain name='a'/>"), "vepa", "domain", elsewhere),
        (direct("<netd:forwards xmlns:netd='urn:netd:network:1'/>"), "vepa", "netd:forwards", elsewhere),
        (bridged("<mac address='52:54:00:00:00:01'/>"), "bridge", "mac", own),
        (direct("<mtu size='1400'/>"), "vepa", "mtu", own),
        (direct("<bridge name='br0'/>"), "vepa", "bridge", "guests are on interfaces of the host, not on a bridge"),
        (
            direct("<bandwidth/>"),
            "vepa",
            "bandwidth",
            "guests share no device whose bandwidth could be set; port groups can have it",
        ),
        (
            direct("<port isolated='yes'/>"),
            "vepa",
            "port",
            "guests share no bridge on which they could be isolated; mode 'private' does that",
        ),
        (
            direct("<vlan><tag id='1'/></vlan>"),
            "vepa",
            "vlan",
            "VLANs are for the modes bridge, with a bridge of the host, and passthrough",
        ),
        (
            "\n<vlan><tag id='1'/></vlan>".to_owned(),
            "none",
            "vlan",
            "VLANs are for the modes bridge, with a bridge of the host, and passthrough",
        ),
        (
            "<forward mode='bridge'/>\n<bridge name='br0' stp='on'/>".to_owned(),
            "bridge",
            "bridge",
            "the bridge is the host's and stays as it is",
        ),
        (
            "<forward mode='bridge'/>\n<bridge name='br0' zone='x'/>".to_owned(),
            "bridge",
            "bridge",
            "the bridge is the host's and stays as it is",
        ),
    ] {
        let expected =
            format!("XML error: line 3: <{element}>: a network with forward mode '{mode}' cannot have it: {why}");
        assert_eq!(error(&network(&text)), expected, "{text}");
    }
    check(&[
        (
            "<forward mode='bridge'/>",
            "XML error: line 2: <forward>: missing a <bridge name=…>, a bridge that the host has, or an <interface dev=…>",
        ),
        (
            "<forward mode='bridge'/><bridge name='br%d'/>",
            "XML error: line 2: <forward>: missing a <bridge name=…>, a bridge that the host has, or an <interface dev=…>",
        ),
        (
            "<forward mode='private'/>",
            "XML error: line 2: <forward>: missing an <interface dev=…> of the host to put guests on",
        ),
        (
            "<forward mode='bridge'>\n<interface dev='a'/>\n<interface dev='a'/></forward>",
            "XML error: line 4: <interface>: the interface 'a' is there twice",
        ),
        (
            "<portgroup name='a'><vlan><tag id='1'/></vlan></portgroup>",
            "XML error: line 2: <portgroup>: VLANs are for the modes bridge, with a bridge of the host, and passthrough",
        ),
    ]);
    assert_eq!(
        error("<network ipv6='yes'><name>a</name><forward mode='bridge'/><bridge name='br0'/></network>"),
        "XML error: line 1: <network>: only networks with a bridge of their own can have 'ipv6'"
    );
}

#[test]
fn links_that_cannot_be() {
    check(&[
        ("<bridge name='a%d%d'/>", "XML error: line 2: <bridge>: 'a0%d' contains '%'"),
        (
            "<bridge name='sixteen-letters%d'/>",
            "XML error: line 2: <bridge>: 'sixteen-letters0' is longer than 15 bytes",
        ),
        ("<bridge zone=''/>", "XML error: line 2: <bridge>: zone is '', which is not the name of a firewalld zone"),
        (
            "<bridge macTableManager='me'/>",
            "XML error: line 2: <bridge>: macTableManager is 'me', which is not kernel or libvirt",
        ),
        ("<vlan/>", "XML error: line 2: <vlan>: missing a <tag>"),
        ("<vlan><tag/></vlan>", "XML error: line 2: <tag>: missing the attribute 'id'"),
        (
            "<vlan><tag id='4095'/></vlan>",
            "XML error: line 2: <tag>: id is '4095', which is not a VLAN ID between 1 and 4094",
        ),
        ("<vlan><tag id='1'/><tag id='1'/></vlan>", "XML error: line 2: <tag>: the VLAN '1' is there twice"),
        (
            "<vlan><tag id='1' nativeMode='tagged'/>\n<tag id='2' nativeMode='untagged'/></vlan>",
            "XML error: line 3: <tag>: only one VLAN can be the native one",
        ),
        (
            "<vlan trunk='no'><tag id='1'/><tag id='2'/></vlan>",
            "XML error: line 2: <vlan>: several tags, or a native one, need trunk='yes'",
        ),
        ("<bandwidth><inbound/></bandwidth>", "XML error: line 2: <inbound>: missing the attribute 'average'"),
        (
            "<bandwidth><inbound average='0'/></bandwidth>",
            "XML error: line 2: <inbound>: average is '0', which is not a number of kB/s from 1 to 4294967295",
        ),
        (
            "<bandwidth><inbound average='1' floor='1'/></bandwidth>",
            "XML error: line 2: <inbound>: a 'floor' is for ports, so only a port group can have it",
        ),
        (
            "<portgroup name='a'><bandwidth><outbound floor='1'/></bandwidth></portgroup>",
            "XML error: line 2: <outbound>: only <inbound> can have a 'floor'",
        ),
        (
            "<portgroup name='a'><bandwidth><inbound floor='1' peak='3'/></bandwidth></portgroup>",
            "XML error: line 2: <inbound>: 'peak' and 'burst' need an 'average'",
        ),
        ("<portgroup/>", "XML error: line 2: <portgroup>: missing the attribute 'name'"),
        (
            "<portgroup name=''/>",
            "XML error: line 2: <portgroup>: name is '', which is not 1 to 250 printable characters",
        ),
        (
            "<portgroup name='a'/>\n<portgroup name='a'/>",
            "XML error: line 3: <portgroup>: the port group 'a' is there twice",
        ),
        (
            "<portgroup name='a' default='yes'/>\n<portgroup name='b' default='yes'/>",
            "XML error: line 3: <portgroup>: another port group is the default already",
        ),
    ]);
}

#[test]
fn options_of_dnsmasq_that_mean_nothing_here() {
    let text = |value: &str| {
        format!(
            "<network xmlns:d='http://libvirt.org/schemas/network/dnsmasq/1.0'><name>a</name><d:options>\n\
             <d:option value='{value}'/></d:options></network>"
        )
    };
    for (value, expected) in [
        ("conf-file=/etc/more", "netd has nothing that does what dnsmasq's 'conf-file' does"),
        ("log-queries=extra", "netd has nothing that does what dnsmasq's 'log-queries' does"),
        ("cname=a,b,60", "netd has no 'cname' with a TTL: what it knows itself is never cached"),
        ("no-ping=1", "netd has nothing that does what dnsmasq's 'no-ping' does"),
        ("", "netd has nothing that does what dnsmasq's '' does"),
        (
            "dhcp-option=tag:blue,6,1.1.1.1",
            "netd has no 'dhcp-option' with tags, vendor classes, IPv6 or such names: 'tag:blue'",
        ),
        (
            "dhcp-option=option6:dns-server,[::]",
            "netd has no 'dhcp-option' with tags, vendor classes, IPv6 or such names: 'option6:dns-server'",
        ),
        ("dhcp-option=256,1", "netd has no 'dhcp-option' with such names: '256'"),
        ("dhcp-option-force=51,1", "DHCP option 51 is for the server to say, and netd says it"),
    ] {
        let expected = format!("unsupported configuration: line 2: <d:option>: {expected}");
        assert_eq!(error(&text(value)), expected, "{value}");
    }
    for (value, expected) in [
        ("dhcp-option=3,router", "dhcp-option is '3,router', which is not of the form that this option has"),
        ("dhcp-option=26,70000", "dhcp-option is '26,70000', which is not of the form that this option has"),
        ("host-record=a", "host-record is 'a', which is not names and then addresses"),
        ("host-record=1.1.1.1,a", "host-record is '1.1.1.1,a', which is not names and then addresses"),
        ("srv-host=_a._tcp,b,http", "srv-host is '_a._tcp,b,http', which is not a name, a target and three numbers"),
        ("address=10.0.0.1", "address is '10.0.0.1', which is not /DOMAIN/ and an address or nothing behind it"),
        ("address=/a/b", "address is '/a/b', which is not /DOMAIN/ and an address or nothing behind it"),
        ("cname=a", "cname is 'a', which is not one or more names and the one they stand for"),
        ("server=/corp", "server is '/corp', which is not an address with or without #PORT, or /DOMAIN/ before it"),
        (
            "server=dns.example",
            "server is 'dns.example', which is not an address with or without #PORT, or /DOMAIN/ before it",
        ),
    ] {
        assert_eq!(error(&text(value)), format!("XML error: line 2: <d:option>: {expected}"), "{value}");
    }
}

#[test]
fn names_that_cannot_be_served() {
    let port = "which is not a port between 1 and 65535";
    for (inside, expected) in [
        ("<forwarder/>", "<forwarder>: missing an 'addr' or a 'domain'"),
        (
            "<forwarder addr='dns.example'/>",
            "<forwarder>: addr is 'dns.example', which is not an address like 192.168.122.1 or fd00::1",
        ),
        ("<forwarder addr='0.0.0.0'/>", "<forwarder>: addr is '0.0.0.0', which is not the address of a resolver"),
        ("<forwarder addr='fe80::1'/>", "<forwarder>: addr is 'fe80::1', which is not the address of a resolver"),
        ("<forwarder domain='a' port='1'/>", "<forwarder>: a 'port' needs an 'addr'"),
        ("<forwarder addr='1.1.1.1' port='0'/>", &format!("<forwarder>: port is '0', {port}")),
        ("<txt name='a'/>", "<txt>: missing the attribute 'value'"),
        ("<txt value='a'/>", "<txt>: missing the attribute 'name'"),
        ("<srv protocol='tcp'/>", "<srv>: missing the attribute 'service'"),
        (
            "<srv service='_ldap' protocol='tcp'/>",
            "<srv>: service is '_ldap', which is not a word of letters, digits and '-', without the underscore",
        ),
        ("<srv service='ldap' protocol='tcp' port='1'/>", "<srv>: 'port', 'priority' and 'weight' need a 'target'"),
        (
            "<srv service='ldap' protocol='tcp' target='a' weight='70000'/>",
            "<srv>: weight is '70000', which is not a number between 0 and 65535",
        ),
        ("<srv service='ldap' protocol='tcp' target='a' port='0'/>", &format!("<srv>: port is '0', {port}")),
    ] {
        assert_eq!(error(&network(&format!("<dns>\n{inside}</dns>"))), format!("XML error: line 3: {expected}"));
    }
    check(&[(
        "<domain name='a' register='yes'/>",
        "XML error: line 2: <domain>: register='yes' needs localOnly='yes'",
    )]);
}

#[test]
fn ipv6_that_does_not_fit_together() {
    let link_local = "link-local: the kernel gives every bridge one of its own";
    for (address, role) in [
        ("::/64", "the unspecified address"),
        ("::1/64", "a loopback address"),
        ("ff02::1/64", "a multicast address"),
        ("::ffff:1.2.3.4/64", "an IPv4 address in IPv6 notation"),
        ("fe80::1/64", link_local),
        ("fd00::/64", "the subnet-router anycast address (RFC 4291 §2.6.1)"),
        ("fd00::1/0", "the whole Internet with prefix 0"),
    ] {
        let (ip, prefix) = address.split_once('/').unwrap();
        let text = network(&format!("<ip family='ipv6' address='{ip}' prefix='{prefix}'/>"));
        let expected = format!("XML error: line 2: <ip>: the host cannot have the address {address}: it is {role}");
        assert_eq!(error(&text), expected);
    }
    check(&[
        ("<ip address='fd00::1' prefix='64'/>", "XML error: line 2: <ip>: an IPv6 address needs family='ipv6'"),
        (
            "<ip family='ipv6' address='10.0.0.1' prefix='64'/>",
            "XML error: line 2: <ip>: address is '10.0.0.1', which is not an IPv6 address like fd00::1",
        ),
        (
            "<ip family='ipv4' address='fd00::1'/>",
            "XML error: line 2: <ip>: address is 'fd00::1', which is not an IPv4 address like 192.168.122.1",
        ),
        (
            "<ip family='inet' address='fd00::1'/>",
            "XML error: line 2: <ip>: family is 'inet', which is not ipv4 or ipv6",
        ),
        (
            "<ip family='ipv6' address='fd00::1' netmask='255.0.0.0'/>",
            "XML error: line 2: <ip>: an IPv6 address has a 'prefix' and no 'netmask'",
        ),
        (
            "<ip family='ipv6' address='fd00::1' prefix='129'/>",
            "XML error: line 2: <ip>: prefix is '129', which is not a prefix length between 0 and 128",
        ),
        (
            "<ip family='ipv6' address='fd00::1'/>\n<ip family='ipv6' address='fd00::2' prefix='48'/>",
            "XML error: line 3: <ip>: subnet fd00::/48 overlaps subnet fd00::/64 of the same network",
        ),
        (
            "<ip family='ipv6' address='fd00::1'><dhcp/></ip>\n<ip family='ipv6' address='fd01::1'><dhcp/></ip>",
            "XML error: line 3: <ip>: Multiple IPv6 dhcp sections found -- dhcp is supported only for a single IPv6 \
             address on each network",
        ),
        (
            "<ip family='ipv6' address='fd00::1'><tftp root='/'/></ip>",
            "XML error: line 2: <tftp>: only an IPv4 address can have it",
        ),
        (
            "<ip address='10.0.0.1'><tftp root='srv'/></ip>",
            "XML error: line 2: <tftp>: root is 'srv', which is not an absolute path",
        ),
        ("<route family='ipv6' address='fd00::' gateway='fd00::1'/>", "XML error: line 2: <route>: missing a 'prefix'"),
        (
            "<route family='ipv6' address='fd00::' prefix='64' gateway='10.0.0.1'/>",
            "XML error: line 2: <route>: gateway is '10.0.0.1', which is not an IPv6 address like fd00::1",
        ),
    ]);
    for (inside, expected) in [
        (
            "<range start='10.0.0.1' end='fd00::3'/>",
            "<range>: start is '10.0.0.1', which is not an IPv6 address like fd00::1",
        ),
        (
            "<range start='fd00::' end='fd00::3'/>",
            "<range>: range fd00:: - fd00::3 contains fd00::, which is the subnet-router anycast address (RFC 4291 \
             §2.6.1): start the range one higher",
        ),
        (
            "<host mac='52:54:00:00:00:01' ip='fd00::3'/>",
            "<host>: a guest has no 'mac' for DHCPv6: know it by 'id' or 'name'",
        ),
        ("<host ip='fd00::3'/>", "<host>: missing an 'id' or a 'name' to know the guest by"),
        (
            "<host id='52-54' ip='fd00::3'/>",
            "<host>: id is '52-54', which is not a DUID like 00:03:00:01:52:54:00:12:34:56",
        ),
        ("<host name='a' ip='fd01::3'/>", "<host>: address fd01::3 is not in fd00::/64"),
        ("<host name='a' ip='fd00::'/>", "<host>: address fd00:: is the subnet-router anycast address of fd00::/64"),
        ("<bootp file='a'/>", "<bootp>: BOOTP is for IPv4 only"),
    ] {
        let text = network(&format!("<ip family='ipv6' address='fd00::1'>\n<dhcp>\n{inside}</dhcp></ip>"));
        assert_eq!(error(&text), format!("XML error: line 4: {expected}"), "{inside}");
    }
}

#[test]
fn names_nobody_knows() {
    check(&[
        (
            "\n<brige name='x'/>",
            "XML error: line 3: <network>: unknown element <brige>; it can have name, uuid, title, description, \
             metadata, forward, bridge, mtu, mac, domain, dns, vlan, bandwidth, port, ip, route, virtualport, portgroup, \
             dnsmasq:options, netd:forwards, netd:guests, netd:host-access",
        ),
        ("<mtu sise='9'/>", "XML error: line 2: <mtu>: unknown attribute 'sise'; it can have size"),
        ("<mtu size='900'><x/></mtu>", "XML error: line 2: <mtu>: unknown element <x>; it can have none"),
        ("<port isolated='true'/>", "XML error: line 2: <port>: isolated is 'true', which is not yes or no"),
        ("<port trust='yes'/>", "XML error: line 2: <port>: unknown attribute 'trust'; it can have isolated"),
        ("guests only", "XML error: line 1: <network>: text 'guests only' where only elements can be"),
        ("<forward mode='foo'/>", "XML error: line 2: <forward>: unknown forwarding type 'foo'"),
    ]);
}

#[test]
fn values_that_are_not_of_their_form() {
    check(&[
        (
            "<uuid>x</uuid>",
            "XML error: line 2: <uuid>: the text is 'x', which is not a UUID like c2d5a8a0-0f4b-4c53-9a3c-52f0ee2b3c11",
        ),
        ("<bridge name='virbr*'/>", "XML error: line 2: <bridge>: 'virbr*' contains '*'"),
        (
            "<bridge name='sixteen-letters-'/>",
            "XML error: line 2: <bridge>: 'sixteen-letters-' is longer than 15 bytes",
        ),
        ("<bridge stp='yes'/>", "XML error: line 2: <bridge>: stp is 'yes', which is not on or off"),
        ("<bridge delay='-1'/>", "XML error: line 2: <bridge>: delay is '-1', which is not 0 to 30 seconds"),
        ("<mac/>", "XML error: line 2: <mac>: missing the attribute 'address'"),
        (
            "<mac address='52:54:00'/>",
            "XML error: line 2: <mac>: '52:54:00' is not a MAC address of the form 52:54:00:12:34:56",
        ),
        (
            "<mac address='01:00:5e:00:00:01'/>",
            "XML error: line 2: <mac>: '01:00:5e:00:00:01' is a multicast MAC address",
        ),
        (
            "<ip family='ipv6' address='fd00::1'/>\n<mtu size='1279'/>",
            "XML error: line 3: <mtu>: size is '1279', which is not at least 1280, which IPv6 needs (RFC 8200 §5), and the \
             network has an IPv6 address",
        ),
        (
            "<mtu size='67'/>",
            "XML error: line 2: <mtu>: size is '67', which is not a number of bytes between 68 and 65521",
        ),
        (
            "<domain name='a b'/>",
            "XML error: line 2: <domain>: name is 'a b', which is not a domain name of letters, digits and '-', such as \
             lab.example",
        ),
        ("<dns enable='maybe'/>", "XML error: line 2: <dns>: enable is 'maybe', which is not yes or no"),
        ("<dns enable='no'><host ip='1.2.3.4'/></dns>", "XML error: line 2: <host>: records need <dns enable='yes'>"),
        ("<dns><host ip='1.2.3.4'/></dns>", "XML error: line 2: <host>: missing a <hostname>"),
        (
            "<dns><host ip='1.2.3.4'><hostname>a</hostname><hostname>A</hostname></host></dns>",
            "XML error: line 2: <hostname>: the name 'A' is there twice",
        ),
        (
            "<ip address='300.0.0.1' prefix='8'/>",
            "XML error: line 2: <ip>: address is '300.0.0.1', which is not an IPv4 address like 192.168.122.1",
        ),
        (
            "<ip address='10.0.0.1' netmask='255.0.255.0'/>",
            "XML error: line 2: <ip>: netmask is '255.0.255.0', which is not a netmask like 255.255.255.0",
        ),
        (
            "<ip address='10.0.0.1' prefix='33'/>",
            "XML error: line 2: <ip>: prefix is '33', which is not a prefix length between 0 and 32",
        ),
        (
            "<ip address='10.0.0.1' prefix='8' netmask='255.0.0.0'/>",
            "XML error: line 2: <ip>: it can have a 'netmask' or a 'prefix', not both",
        ),
    ]);
}

#[test]
fn forwarding_that_cannot_be() {
    let with_ip = |forward: &str| format!("{forward}<ip address='10.0.0.1' prefix='24'/>");
    for (forward, expected) in [
        ("<forward mode='open' dev='eth0'/>", "<forward>: the modes open and none cannot have a 'dev'"),
        ("<forward mode='route'>\n<nat/></forward>", "<nat>: only <forward mode='nat'> can have it"),
        (
            "<forward dev='eth0'>\n<interface dev='eth1'/></forward>",
            "<interface>: the interface differs from the 'dev' of <forward>",
        ),
        (
            "<forward>\n<interface dev='eth0'/><interface dev='eth1'/></forward>",
            "<interface>: only networks of macvtap ports can have several",
        ),
        (
            "<forward>\n<nat><port start='9' end='8'/></nat></forward>",
            "<port>: the first port is greater than the last",
        ),
        (
            "<forward>\n<nat><port start='0' end='8'/></nat></forward>",
            "<port>: start is '0', which is not a port between 1 and 65535",
        ),
        (
            "<forward>\n<nat><address start='1.2.3.9' end='1.2.3.4'/></nat></forward>",
            "<address>: range 1.2.3.9 - 1.2.3.4 is reversed",
        ),
    ] {
        let line = if forward.contains('\n') { 3 } else { 2 };
        assert_eq!(error(&network(&with_ip(forward))), format!("XML error: line {line}: {expected}"), "{forward}");
    }
    check(&[(
        "<forward mode='nat'/>",
        "XML error: line 2: <forward>: nat forwarding requested, but no IP address provided for network 'a'",
    )]);
}

#[test]
fn addresses_that_do_not_fit_together() {
    check(&[
        (
            "<ip address='10.0.0.0' prefix='24'/>",
            "XML error: line 2: <ip>: the host cannot have the address 10.0.0.0/24: it is the network address",
        ),
        (
            "<ip address='127.0.0.1' prefix='8'/>",
            "XML error: line 2: <ip>: the host cannot have the address 127.0.0.1/8: it is a loopback address",
        ),
        (
            "<ip address='10.0.0.1' prefix='8'/>\n<ip address='10.9.0.1' prefix='24'/>",
            "XML error: line 3: <ip>: subnet 10.9.0.0/24 overlaps subnet 10.0.0.0/8 of the same network",
        ),
        (
            "<ip address='10.9.0.1' prefix='24'/>\n<ip address='10.0.0.1' prefix='8'/>",
            "XML error: line 3: <ip>: subnet 10.0.0.0/8 overlaps subnet 10.9.0.0/24 of the same network",
        ),
        (
            "<ip address='10.0.0.1' prefix='24'><dhcp/></ip>\n<ip address='10.0.1.1' prefix='24'><dhcp/></ip>",
            "XML error: line 3: <ip>: Multiple IPv4 dhcp sections found -- dhcp is supported only for a single IPv4 \
             address on each network",
        ),
        (
            "<route address='10.5.0.0' prefix='16' gateway='10.0.0.2'/>",
            "XML error: line 2: <route>: gateway 10.0.0.2 is on no <ip> subnet of this network",
        ),
        (
            "<route address='10.5.0.1' prefix='16' gateway='10.0.0.2'/>",
            "XML error: line 2: <route>: destination 10.5.0.1/16 is not a network address: write 10.5.0.0",
        ),
        (
            "<route address='10.5.0.0' gateway='10.0.0.2'/>",
            "XML error: line 2: <route>: missing a 'netmask' or a 'prefix'",
        ),
        (
            "<route address='10.5.0.0' prefix='16' gateway='10.0.0.2' metric='0'/>",
            "XML error: line 2: <route>: metric is '0', which is not a metric of 1 or more",
        ),
    ]);
}

#[test]
fn dhcp_that_cannot_be() {
    for (inside, expected) in [
        ("<range start='10.0.0.9' end='10.0.0.3'/>", "<range>: range 10.0.0.9 - 10.0.0.3 is reversed"),
        (
            "<range start='10.0.0.9' end='10.0.1.3'/>",
            "<range>: range 10.0.0.9 - 10.0.1.3 is not entirely within network 10.0.0.0/24",
        ),
        (
            "<range start='10.0.0.0' end='10.0.0.3'/>",
            "<range>: range 10.0.0.0 - 10.0.0.3 contains 10.0.0.0, which is the network address: start the range one \
             higher",
        ),
        (
            "<range start='10.0.0.9' end='10.0.0.255'/>",
            "<range>: range 10.0.0.9 - 10.0.0.255 contains 10.0.0.255, which is the broadcast address: end the range \
             one lower",
        ),
        (
            "<range start='10.0.0.2' end='10.0.0.9'/><range start='10.0.0.9' end='10.0.0.12'/>",
            "<range>: range 10.0.0.9 - 10.0.0.12 overlaps range 10.0.0.2 - 10.0.0.9",
        ),
        (
            "<range start='10.0.0.2' end='10.0.0.9'><lease expiry='119' unit='seconds'/></range>",
            "<lease>: the lease is 119 s, and the shortest is 120 s",
        ),
        (
            "<range start='10.0.0.2' end='10.0.0.9'><lease expiry='1'/></range>",
            "<lease>: the lease is 60 s, and the shortest is 120 s",
        ),
        (
            "<range start='10.0.0.2' end='10.0.0.9'><lease expiry='4294967295' unit='hours'/></range>",
            "<lease>: the lease is 15461882262000 s; the longest is 4294967294 s, and expiry='0' is a lease without end",
        ),
        (
            "<range start='10.0.0.2' end='10.0.0.9'><lease expiry='1' unit='days'/></range>",
            "<lease>: unit is 'days', which is not seconds, minutes or hours",
        ),
        ("<host ip='10.0.0.2'/>", "<host>: missing a 'mac' or a 'name' to know the guest by"),
        ("<host mac='52:54:00:00:00:01'/>", "<host>: missing an 'ip'"),
        (
            "<host id='00:03:00:01' name='a' ip='10.0.0.2'/>",
            "<host>: an 'id' is for IPv6: know the guest by 'mac' or 'name'",
        ),
        ("<host name='a' ip='fd00::2'/>", "<host>: ip is 'fd00::2', which is not an IPv4 address like 192.168.122.1"),
        ("<bootp/>", "<bootp>: missing the attribute 'file'"),
        ("<bootp file='a'/><bootp file='a'/>", "<bootp>: there can be only one"),
        (
            "<bootp file='a' server='tftp.example'/>",
            "<bootp>: server is 'tftp.example', which is not an IPv4 address like 192.168.122.1",
        ),
        ("<host name='a' ip='10.0.1.2'/>", "<host>: address 10.0.1.2 is not in 10.0.0.0/24"),
        ("<host name='a' ip='10.0.0.1'/>", "<host>: address 10.0.0.1 is the host's own in 10.0.0.0/24"),
        ("<host name='a' ip='10.0.0.255'/>", "<host>: address 10.0.0.255 is the broadcast address of 10.0.0.0/24"),
        ("<host name='a' ip='10.0.0.2'/><host name='A' ip='10.0.0.3'/>", "<host>: the host name 'a' is there twice"),
        (
            "<host name='a' ip='10.0.0.2'/><host name='b' ip='10.0.0.2'/>",
            "<host>: the address '10.0.0.2' is there twice",
        ),
        (
            "<host mac='52:54:00:00:00:0a' ip='10.0.0.2'/><host mac='52:54:0:0:0:A' ip='10.0.0.3'/>",
            "<host>: the MAC address '52:54:00:00:00:0a' is there twice",
        ),
    ] {
        let text = network(&format!("<ip address='10.0.0.1' prefix='24'>\n<dhcp>\n{inside}</dhcp></ip>"));
        assert_eq!(error(&text), format!("XML error: line 4: {expected}"), "{inside}");
    }
}

#[test]
fn port_forwards_that_cannot_be() {
    for (inside, expected) in [
        ("<netd:forward/>", "<netd:forward>: missing the attribute 'proto'"),
        (
            "<netd:forward proto='sctp' port='1'/>",
            "<netd:forward>: protocol 'sctp' cannot be forwarded: it is not tcp or udp",
        ),
        (
            "<netd:forward proto='tcp' port='http'/>",
            "<netd:forward>: 'http' is not a port from 1 to 65535 or a range like 8000-8010",
        ),
        (
            "<netd:forward proto='tcp' port='80'/>",
            "<netd:forward>: a port forward needs a guest or an address to lead to",
        ),
        (
            "<netd:forward proto='tcp' port='80' address='::1'><netd:to guest='a'/></netd:forward>",
            "<netd:forward>: connections to ::1 cannot be forwarded: the kernel takes no answers to it from a network",
        ),
        ("<netd:forward proto='tcp' port='80'><netd:to/></netd:forward>", "<netd:to>: missing a 'guest' or an 'ip'"),
        (
            "<netd:forward proto='tcp' port='80'><netd:to guest='a' ip='10.0.0.2'/></netd:forward>",
            "<netd:to>: it can have a 'guest' or an 'ip', not both",
        ),
        (
            "<netd:forward proto='tcp' port='80'><netd:to guest=''/></netd:forward>",
            "<netd:forward>: guest '' is not a name of 1 to 253 printable characters",
        ),
        (
            "<netd:forward proto='tcp' port='80-89'><netd:to guest='a' port='90'/></netd:forward>",
            "<netd:to>: the ranges 80-89 and 90 differ in length",
        ),
        (
            "<netd:forward proto='tcp' port='80'><netd:to ip='10.0.1.2'/></netd:forward>",
            "<netd:forward>: address 10.0.1.2 is on no <ip> subnet of this network",
        ),
        (
            "<netd:forward proto='tcp' port='80'><netd:to ip='10.0.0.1'/></netd:forward>",
            "<netd:forward>: address 10.0.0.1 is the host's own; a port forward leads to a guest",
        ),
        (
            "<netd:forward proto='tcp' port='80'><netd:to guest='a'/></netd:forward>\
             <netd:forward proto='tcp' port='70-80'><netd:to guest='b'/></netd:forward>",
            "<netd:forward>: the port 'tcp/80' is there twice",
        ),
        ("<netd:back/>", "<netd:forwards>: unknown element <netd:back>; it can have netd:forward"),
        ("<forward/>", "<netd:forwards>: unknown element <forward>; it can have netd:forward"),
        (
            "<netd:forward proto='tcp' ports='80'/>",
            "<netd:forward>: unknown attribute 'ports'; it can have proto, port, address",
        ),
    ] {
        let text = network(&format!(
            "<forward/><ip address='10.0.0.1' prefix='24'/>\n\
             <netd:forwards xmlns:netd='urn:netd:network:1'>\n{inside}</netd:forwards>"
        ));
        assert_eq!(error(&text), format!("XML error: line 4: {expected}"), "{inside}");
    }
    let inside = "<netd:forwards xmlns:netd='urn:netd:network:1'>\
                  <netd:forward proto='tcp' port='80'><netd:to guest='a'/></netd:forward></netd:forwards>";
    check(&[
        (
            &format!("<ip address='10.0.0.1' prefix='24'/>{inside}"),
            "XML error: line 2: <netd:forward>: an isolated network has no port forwards; give it a <forward \
             mode='nat'/> or another mode",
        ),
        (
            &format!("<forward mode='open'/>{inside}"),
            "XML error: line 2: <netd:forward>: port forwards need a network with an <ip> address",
        ),
    ]);
    assert_eq!(
        error(&network("<netd:forwards xmlns:netd='urn:netd:network:2'/>")),
        "unsupported configuration: line 2: <network>: <netd:forwards> is of a name space that netd does not know"
    );
}
