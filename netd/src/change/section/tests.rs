//! Each section with each command; libvirt's sentences; lines of what the user wrote.

use super::*;

const BASE: &str = "<network><name>lan</name><uuid>c2d5a8a0-0f4b-4c53-9a3c-52f0ee2b3c11</uuid><forward mode='nat'/>\
    <bridge name='br-lan'/><mtu size='1400'/><mac address='52:54:00:00:00:01'/><domain name='lab.example'/>\
    <dns><host ip='10.9.0.5'><hostname>printer</hostname><hostname>scanner</hostname></host></dns>\
    <ip address='10.9.0.1' prefix='24'><dhcp><range start='10.9.0.10' end='10.9.0.20'/>\
    <host mac='52:54:00:00:00:0a' name='vm1' ip='10.9.0.7'/></dhcp></ip>\
    <ip address='10.8.0.1' prefix='24'/><route address='10.7.0.0' prefix='16' gateway='10.9.0.2'/></network>";

fn edit(command: Command, section: &str, xml: &str) -> Result<String, String> {
    edit_at(command, section, xml, None)
}

/// What the network's XML gains and loses, line by line.
fn edit_at(command: Command, section: &str, xml: &str, parent_index: Option<u32>) -> Result<String, String> {
    let before = xml::parse(BASE).unwrap();
    let edit = Edit { command, section, xml, parent_index };
    let after = edit.apply(&before).map_err(|error| error.to_string())?;
    let (before, after) = (xml::write(&before), xml::write(&after));
    let lines = |text: &str| text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>();
    let (old, new) = (lines(&before), lines(&after));
    let gone = old.iter().filter(|line| !new.contains(line)).map(|line| format!("-{line}\n"));
    let come = new.iter().filter(|line| !old.contains(line)).map(|line| format!("+{line}\n"));
    Ok(gone.chain(come).collect())
}

fn invalid(sentence: &str) -> Result<String, String> {
    Err(format!("Requested operation is not valid: {sentence}"))
}

use Command::{AddFirst, AddLast, Delete, Modify};

#[test]
fn a_dhcp_host_is_added_modified_and_deleted_in_libvirts_words() {
    let new = "<host mac='52:54:00:00:00:0B' name='vm2' ip='10.9.0.8'/>";
    let host = "host mac='52:54:00:00:00:0b' name='vm2' ip='10.9.0.8'/>";
    assert_eq!(edit(AddLast, "ip-dhcp-host", new), Ok(format!("+<{host}\n")));
    assert_eq!(edit(AddFirst, "ip-dhcp-host", new), Ok(format!("+<{host}\n")));
    for same in ["mac='52:54:00:00:00:0A' ip='10.9.0.9'", "name='VM1' ip='10.9.0.9'", "name='vm9' ip='10.9.0.7'"] {
        let refused = edit(AddLast, "ip-dhcp-host", &format!("<host {same}/>")).unwrap_err();
        let sentence = "there is an existing dhcp host entry in network 'lan' that matches \"<host mac='";
        assert!(refused.contains(sentence), "{refused}");
    }
    assert_eq!(
        edit(AddLast, "ip-dhcp-host", "<host mac='52:54:00:00:00:0a' ip='10.9.0.9'/>"),
        invalid(
            "there is an existing dhcp host entry in network 'lan' that matches \
             \"<host mac='52:54:00:00:00:0a' name='unknown' ip='10.9.0.9'/>\""
        )
    );
    assert_eq!(
        edit(Modify, "ip-dhcp-host", "<host mac='52:54:00:00:00:0a' name='vm1' ip='10.9.0.9'/>"),
        Ok("-<host mac='52:54:00:00:00:0a' name='vm1' ip='10.9.0.7'/>\n\
            +<host mac='52:54:00:00:00:0a' name='vm1' ip='10.9.0.9'/>\n"
            .into())
    );
    assert_eq!(
        edit(Modify, "ip-dhcp-host", "<host mac='52:54:00:00:00:0c' ip='10.9.0.9'/>"),
        invalid(
            "couldn't locate an existing dhcp host entry with \"mac='52:54:00:00:00:0c'\" \"name='unknown'\" \
             \"ip='10.9.0.9'\" in network 'lan'"
        )
    );
    let gone = Ok("-<host mac='52:54:00:00:00:0a' name='vm1' ip='10.9.0.7'/>\n".into());
    assert_eq!(edit(Delete, "ip-dhcp-host", "<host name='vm1'/>"), gone);
    assert_eq!(edit(Delete, "ip-dhcp-host", "<host mac='52:54:00:00:00:0A' ip='10.9.0.7'/>"), gone);
    for other in ["<host name='vm2'/>", "<host mac='52:54:00:00:00:0a' ip='10.9.0.8'/>", "<host/>"] {
        let missing = invalid("couldn't locate a matching dhcp host entry in network 'lan'");
        assert_eq!(edit(Delete, "ip-dhcp-host", other), missing);
    }
}

#[test]
fn which_ip_is_meant_is_said_or_found() {
    let range = "<range start='10.8.0.10' end='10.8.0.20'/>";
    let refused = edit(AddLast, "ip-dhcp-range", range).unwrap_err();
    assert!(refused.contains("range 10.8.0.10 - 10.8.0.20 is not entirely within network 10.9.0.0/24"), "{refused}");
    let refused = edit_at(AddLast, "ip-dhcp-range", range, Some(1)).unwrap_err();
    assert!(refused.contains("dhcp is supported only for a single IPv4 address on each network"), "{refused}");
    assert_eq!(
        edit_at(AddLast, "ip-dhcp-range", range, Some(2)),
        invalid("couldn't update dhcp range entry - no <ip> element found at index 2 in network 'lan'")
    );
    assert_eq!(
        edit_at(Modify, "ip", "<ip address='10.6.0.1' prefix='16'/>", Some(1)),
        Ok("-<ip address='10.8.0.1' prefix='24'>\n+<ip address='10.6.0.1' prefix='16'>\n".into())
    );
    assert_eq!(edit(Delete, "ip", "<ip address='10.8.0.1'/>"), Ok("-<ip address='10.8.0.1' prefix='24'>\n".into()));
}

#[test]
fn elements_that_do_not_exist_yet_are_made_on_the_way() {
    let bare = "<network><name>lan</name><bridge name='br-lan'/><ip address='10.9.0.1' prefix='24'/></network>";
    let before = xml::parse(bare).unwrap();
    for (section, xml, expected) in [
        ("ip-dhcp-range", "<range start='10.9.0.10' end='10.9.0.20'/>", "<dhcp>\n      <range"),
        ("dns-host", "<host ip='10.9.0.5'><hostname>printer</hostname></host>", "<dns>\n    <host"),
        (
            "port-forward",
            "<netd:forward proto='tcp' port='80'><netd:to ip='10.9.0.9'/></netd:forward>",
            "isolated network has no port forwards",
        ),
        ("mtu", "<mtu size='9000'/>", "<mtu size='9000'/>"),
        ("route", "<route address='10.7.0.0' prefix='16' gateway='10.9.0.2'/>", "<route "),
        ("port", "<port isolated='yes'/>", "<port isolated='yes'/>"),
    ] {
        let edit = Edit { command: AddLast, section, xml, parent_index: None };
        let text = edit.apply(&before).map_or_else(|error| error.to_string(), |network| xml::write(&network));
        assert!(text.contains(expected), "{section}: {text}");
    }
}

#[test]
fn an_element_there_can_be_once_is_added_modified_and_deleted_by_its_name() {
    assert_eq!(edit(Modify, "mtu", "<mtu size='9000'/>"), Ok("-<mtu size='1400'/>\n+<mtu size='9000'/>\n".into()));
    assert_eq!(edit(Delete, "mtu", "<mtu/>"), Ok("-<mtu size='1400'/>\n".into()));
    assert_eq!(
        edit(AddLast, "mtu", "<mtu size='9000'/>"),
        invalid("there is an existing mtu entry in network 'lan' that matches \"<mtu>\"")
    );
    assert_eq!(edit(Delete, "port", "<port/>"), invalid("couldn't find a port entry in network 'lan' matching <port>"));
    assert_eq!(
        edit(Modify, "forward", "<forward mode='route'/>"),
        Ok("-<forward mode='nat'/>\n+<forward mode='route'/>\n".into())
    );
    assert_eq!(
        edit(Modify, "domain", "<domain name='other.example'/>"),
        Ok("-<domain name='lab.example'/>\n+<domain name='other.example'/>\n".into())
    );
    assert_eq!(
        edit(Modify, "bridge", "<bridge name='br-lan' stp='on' delay='2'/>"),
        Ok("-<bridge name='br-lan' stp='off' delay='0'/>\n+<bridge name='br-lan' stp='on' delay='2'/>\n".into())
    );
}

#[test]
fn dns_records_and_port_forwards_are_known_by_what_they_say() {
    let host = |body: &str| format!("<host {body}</host>");
    let clash = invalid("there is already at least one DNS HOST record with a matching field in network lan");
    assert_eq!(edit(AddLast, "dns-host", &host("ip='10.9.0.6'><hostname>Printer</hostname>")), clash);
    assert_eq!(edit(AddLast, "dns-host", &host("ip='10.9.0.5'><hostname>new</hostname>")), clash);
    assert!(edit(AddLast, "dns-host", &host("ip='10.9.0.6'><hostname>new</hostname>")).is_ok());
    assert!(edit(Delete, "dns-host", "<host ip='10.9.0.5'/>").is_ok());
    assert!(edit(Delete, "dns-host", &host("ip='10.9.0.5'><hostname>scanner</hostname>")).is_ok());
    let missing = invalid("couldn't locate a matching DNS HOST record in network lan");
    assert_eq!(edit(Delete, "dns-host", "<host ip='10.9.0.9'/>"), missing);
    let forward = "<netd:forward proto='tcp' port='2222'>\n<netd:to guest='vm1' port='22'/>\n</netd:forward>";
    let added = edit(AddLast, "port-forward", forward).unwrap();
    assert!(added.contains("+<netd:to guest='vm1' port='22'/>"), "{added}");
}

#[test]
fn a_route_is_known_by_where_it_leads() {
    let other = "<route address='10.7.0.0' prefix='16' gateway='10.9.0.3'/>";
    assert!(edit(AddLast, "route", other).unwrap_err().contains("there is an existing route entry in network 'lan'"));
    assert!(
        edit(Modify, "route", other).unwrap().contains("+<route address='10.7.0.0' prefix='16' gateway='10.9.0.3'/>")
    );
    assert!(edit(Delete, "route", "<route address='10.7.0.0'/>").is_ok());
}

#[test]
fn what_is_wrong_is_told_with_the_line_of_what_was_given() {
    let piece = "<?xml version='1.0'?>\n<!-- mine -->\n<host\n  mac='52:54:00:00:00:0b' ip='10.1.0.1'/>";
    assert_eq!(
        edit(AddLast, "ip-dhcp-host", piece),
        Err("XML error: line 3: <host>: address 10.1.0.1 is not in 10.9.0.0/24".into())
    );
    assert!(edit(AddLast, "mtu", "<mtu").unwrap_err().starts_with("XML error: line 1"));
    assert_eq!(edit(AddLast, "mtu", "  "), Err("XML error: line 1: the document is empty".into()));
    assert_eq!(edit(AddLast, "mtu", "<mtu/><mtu/>"), Err("XML error: line 1: there is more than one element".into()));
    assert_eq!(
        edit(AddLast, "ip-dhcp-host", "<hostess/>"),
        Err("XML error: unexpected element <hostess>, expecting <host>, while updating network 'lan'".into())
    );
    assert_eq!(edit(AddLast, "no-such", "<x/>"), Err("invalid argument: unrecognized section name 'no-such'".into()));
    // The gateway of a route that nobody touched is gone with its subnet.
    assert_eq!(
        edit_at(Modify, "ip", "<ip address='10.6.0.1' prefix='24'/>", Some(0)),
        Err("XML error: <route>: gateway 10.9.0.2 is on no <ip> subnet of this network".into())
    );
}

#[test]
fn whatever_is_given_nothing_panics() {
    for section in table::names() {
        for command in [Modify, Delete, AddLast, AddFirst] {
            for xml in
                ["", "<", "<a", "<a/>", "</a>", "<host/>", "<mtu size='\u{0}'/>", "]]>", "</piece><x/>", "<é>ü</é>"]
            {
                for index in [None, Some(0), Some(u32::MAX)] {
                    let _ = edit_at(command, section, xml, index);
                }
            }
            let tag = table::find(section).unwrap().element;
            let _ = edit(command, section, &format!("<{tag}>text</{tag}>"));
            let _ = edit(command, section, &format!("<{tag} address='x' name='é' ip='::'/>"));
        }
    }
}
