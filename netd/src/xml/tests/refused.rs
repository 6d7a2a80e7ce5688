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
fn what_libvirt_has_and_we_do_not_have_yet() {
    let later =
        |line, place, what| format!("unsupported configuration: line {line}: <{place}>: {what} is not supported yet");
    for (inside, place, what) in [
        ("<bandwidth/>", "network", "element <bandwidth>"),
        ("<portgroup name='x'/>", "network", "element <portgroup>"),
        ("<virtualport type='openvswitch'/>", "network", "element <virtualport>"),
        ("<vlan/>", "network", "element <vlan>"),
        ("<metadata/>", "network", "element <metadata>"),
        ("<dnsmasq:options xmlns:dnsmasq='http://x'/>", "network", "element <dnsmasq:options>"),
        ("<forward mode='bridge'/>", "forward", "mode 'bridge'"),
        ("<forward mode='hostdev' managed='yes'/>", "forward", "attribute 'managed'"),
        ("<forward><nat ipv6='yes'/></forward>", "nat", "attribute 'ipv6'"),
        ("<bridge zone='x'/>", "bridge", "attribute 'zone'"),
        ("<bridge macTableManager='libvirt'/>", "bridge", "attribute 'macTableManager'"),
        ("<domain name='x' register='yes'/>", "domain", "attribute 'register'"),
        ("<dns><forwarder addr='1.1.1.1'/></dns>", "dns", "element <forwarder>"),
        ("<dns><txt name='a' value='b'/></dns>", "dns", "element <txt>"),
        ("<dns><host ip='::1'><hostname>a</hostname></host></dns>", "host", "the IPv6 address ::1"),
        ("<ip family='ipv6' address='fd00::1' prefix='64'/>", "ip", "family 'ipv6'"),
        ("<ip address='fd00::1' prefix='64'/>", "ip", "the IPv6 address fd00::1"),
        ("<ip address='10.0.0.1' prefix='8' localPtr='yes'/>", "ip", "attribute 'localPtr'"),
        ("<ip address='10.0.0.1' prefix='8'><tftp root='/'/></ip>", "ip", "element <tftp>"),
        ("<ip address='10.0.0.1' prefix='8'><dhcp><bootp file='x'/></dhcp></ip>", "dhcp", "element <bootp>"),
        ("<ip address='10.0.0.1' prefix='8'><dhcp><host id='x' ip='10.0.0.2'/></dhcp></ip>", "host", "attribute 'id'"),
    ] {
        let error = parse(&network(inside)).unwrap_err();
        assert_eq!(error.to_string(), later(2, place, what), "{inside}");
        assert!(error.is_unsupported());
    }
    assert_eq!(error("<network ipv6='yes'><name>a</name></network>"), later(1, "network", "attribute 'ipv6'"));
}

#[test]
fn names_nobody_knows() {
    check(&[
        (
            "\n<brige name='x'/>",
            "XML error: line 3: <network>: unknown element <brige>; it can have name, uuid, forward, bridge, mac, mtu, \
             domain, dns, port, ip, route, netd:forwards",
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
        ("<forward mode='open' dev='eth0'/>", "<forward>: only the modes nat and route can have a 'dev'"),
        ("<forward mode='route'>\n<nat/></forward>", "<nat>: only <forward mode='nat'> can have it"),
        (
            "<forward dev='eth0'>\n<interface dev='eth1'/></forward>",
            "<interface>: the interface differs from the 'dev' of <forward>",
        ),
        ("<forward>\n<interface dev='eth0'/><interface dev='eth0'/></forward>", "<interface>: there can be only one"),
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
            "<netd:forward>: '::1' is an IPv6 address, and networks have only IPv4 so far",
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
        "unsupported configuration: line 2: <network>: element <netd:forwards> is not supported yet"
    );
}
