//! Network definitions the tests use, as people write them. Text only.

/// A nat network with DHCP on 192.168.N.0/24, pool .10 to .199.
pub fn nat(name: &str, bridge: &str, third: u8) -> String {
    network(name, bridge, "<forward mode='nat'/>", third, "")
}

/// A network without a way out.
pub fn isolated(name: &str, bridge: &str, third: u8) -> String {
    network(name, bridge, "", third, "")
}

/// A network of any kind with more elements at its end.
pub fn network(name: &str, bridge: &str, forward: &str, third: u8, more: &str) -> String {
    format!(
        "<network>
  <name>{name}</name>
  {forward}
  <bridge name='{bridge}'/>
  <ip address='192.168.{third}.1' netmask='255.255.255.0'>
    <dhcp>
      <range start='192.168.{third}.10' end='192.168.{third}.199'/>
    </dhcp>
  </ip>
{more}</network>
"
    )
}
