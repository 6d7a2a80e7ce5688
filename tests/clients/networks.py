#!/usr/bin/python3
"""What programs do with networks through libvirt's Python module. Prints what it sees, one JSON value per line."""

import json
import sys
import threading

import libvirt

XML = """<network>
  <name>lab</name>
  <uuid>11111111-2222-4333-8444-000000000051</uuid>
  <bridge name='vbr51'/>
  <ip address='10.7.51.1' netmask='255.255.255.0'>
    <dhcp>
      <range start='10.7.51.2' end='10.7.51.9'/>
    </dhcp>
  </ip>
</network>"""


def say(**seen):
    print(json.dumps(seen, sort_keys=True), flush=True)


def names(networks):
    return sorted(network.name() for network in networks)


def refused(call):
    try:
        call()
    except libvirt.libvirtError as error:
        return [error.get_error_code(), error.get_error_message()]
    return None


# Errors are told as exceptions, and not printed too.
libvirt.registerErrorHandler(lambda _, error: None, None)
libvirt.virEventRegisterDefaultImpl()


def events():
    while True:
        libvirt.virEventRunDefaultImpl()


threading.Thread(target=events, daemon=True).start()
conn = libvirt.open(None)
say(uri=conn.getURI(), type=conn.getType(), version=conn.getLibVersion(), alive=conn.isAlive(),
    secure=conn.isSecure(), encrypted=conn.isEncrypted(), host=conn.getHostname())
say(all=names(conn.listAllNetworks()), active=names(conn.listAllNetworks(libvirt.VIR_CONNECT_LIST_NETWORKS_ACTIVE)),
    defined=conn.listDefinedNetworks(), networks=conn.listNetworks(), count=conn.numOfNetworks(),
    defined_count=conn.numOfDefinedNetworks(), domains=conn.listDomainsID(), all_domains=len(conn.listAllDomains()))

heard = []
more = threading.Condition()


def lifecycle(_, network, event, detail, opaque):
    with more:
        heard.append([network.name(), event, detail, opaque])
        more.notify()


def hear(count):
    with more:
        return more.wait_for(lambda: len(heard) >= count, 20)


every = conn.networkEventRegisterAny(None, libvirt.VIR_NETWORK_EVENT_ID_LIFECYCLE, lifecycle, "every")
lab = conn.networkDefineXML(XML)
# Who listens from now on is not to hear of it.
assert hear(1), heard
only = conn.networkEventRegisterAny(lab, libvirt.VIR_NETWORK_EVENT_ID_LIFECYCLE, lifecycle, "lab")
lab.create()
default = conn.networkLookupByName("default")
default.create()
# Started and heard twice, by the two who asked.
assert hear(4), heard
conn.networkEventDeregisterAny(only)
default.destroy()
lab.setAutostart(True)
say(lab=[lab.name(), lab.UUIDString(), lab.bridgeName(), lab.isActive(), lab.isPersistent(), lab.autostart()])
lab.update(libvirt.VIR_NETWORK_UPDATE_COMMAND_ADD_LAST, libvirt.VIR_NETWORK_SECTION_IP_DHCP_HOST, -1,
           "<host mac='52:54:00:00:51:01' ip='10.7.51.5'/>",
           libvirt.VIR_NETWORK_UPDATE_AFFECT_LIVE | libvirt.VIR_NETWORK_UPDATE_AFFECT_CONFIG)
say(host_in=["52:54:00:00:51:01" in lab.XMLDesc(flags) for flags in (0, libvirt.VIR_NETWORK_XML_INACTIVE)])
say(same=conn.networkLookupByUUIDString(lab.UUIDString()).name())
say(again=refused(lab.create), nobody=refused(lambda: conn.networkLookupByName("nope")),
    domain=refused(lambda: conn.lookupByName("nope")), flags=refused(lambda: lab.XMLDesc(64)),
    wrong=refused(lambda: conn.networkDefineXML("<network/>")))
say(leases=lab.DHCPLeases())

if len(sys.argv) > 1:
    # Somebody else gets a lease meanwhile, and says so.
    print("ready", flush=True)
    sys.stdin.readline()
    say(leases=[{key: value for key, value in lease.items() if key != "expirytime"} for lease in lab.DHCPLeases()],
        later=lab.DHCPLeases()[0]["expirytime"] > 1_600_000_000, other=lab.DHCPLeases("52:54:00:00:00:99"))

lab.destroy()
lab.undefine()
assert hear(7), heard
conn.networkEventDeregisterAny(every)
say(heard=heard)
say(gone=refused(lab.create))
looking = libvirt.openReadOnly(None)
say(looking=names(looking.listAllNetworks()), refused=refused(looking.networkLookupByName("default").create))
say(closed=[looking.close(), conn.close()])
