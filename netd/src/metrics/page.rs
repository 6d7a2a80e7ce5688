//! The page: names, units and help of every metric, in one place (OpenMetrics 1.0.0).

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::{Registry, Unit},
};

use super::{Facts, Flow, NetworkFacts, PortFacts, Traffic};

/// The facts as text.
pub fn page(facts: Facts) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("netd");
    registry.register_collector(Box::new(facts));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

type Labels = Vec<(&'static str, String)>;

/// A family of metrics: what it is called and what it is.
struct Family {
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
}

impl Family {
    fn new(name: &'static str, help: &'static str) -> Self {
        Family { name, help, unit: None }
    }

    fn in_unit(self, unit: Unit) -> Self {
        Family { unit: Some(unit), ..self }
    }

    fn counters(self, to: &mut DescriptorEncoder<'_>, values: impl Iterator<Item = (Labels, u64)>) -> fmt::Result {
        let mut family = to.encode_descriptor(self.name, self.help, self.unit.as_ref(), MetricType::Counter)?;
        for (labels, value) in values {
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }

    fn gauges(self, to: &mut DescriptorEncoder<'_>, values: impl Iterator<Item = (Labels, f64)>) -> fmt::Result {
        let mut family = to.encode_descriptor(self.name, self.help, None, MetricType::Gauge)?;
        for (labels, value) in values {
            family.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    fn latencies<'a>(
        self,
        to: &mut DescriptorEncoder<'_>,
        values: impl Iterator<Item = (Labels, &'a dhcp::Latency)>,
    ) -> fmt::Result {
        let mut family = to.encode_descriptor(self.name, self.help, Some(&Unit::Seconds), MetricType::Histogram)?;
        let bounds = dhcp::BOUNDS.into_iter().chain([f64::INFINITY]);
        for (labels, latency) in values {
            let buckets: Vec<(f64, u64)> = bounds.clone().zip(latency.classes).collect();
            let (sum, count) = (latency.sum.as_secs_f64(), latency.classes.iter().sum());
            family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }
}

impl Collector for Facts {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let to = &mut encoder;
        let mut info = to.encode_descriptor("build", "The daemon.", None, MetricType::Info)?;
        info.encode_info(&vec![("version", self.version.to_owned())])?;
        let help = "How long the daemon has been running.";
        to.encode_descriptor("uptime", help, Some(&Unit::Seconds), MetricType::Gauge)?
            .encode_gauge(&self.uptime.as_secs_f64())?;
        self.tables(to)?;
        self.networks(to)?;
        self.servers(to)?;
        self.ports(to)
    }
}

impl Facts {
    fn tables(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let of = |label, list: &[(&'static str, u64)]| -> Vec<(Labels, u64)> {
            list.iter().map(|(name, count)| (vec![(label, (*name).to_owned())], *count)).collect()
        };
        Family::new("nft_table_replacements", "Times that one of netd's nftables tables was written anew, by family.")
            .counters(to, of("family", &self.rewrites).into_iter())?;
        Family::new("heals", "Times that something another program took from a network was put back, by what it was.")
            .counters(to, of("what", &self.heals).into_iter())
    }

    fn networks(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let all = || self.networks.iter().map(|network| (network_labels(network), network));
        Family::new("network_active", "1 if the network is active.")
            .gauges(to, all().map(|(labels, network)| (labels, if network.active { 1.0 } else { 0.0 })))?;
        Family::new("network_ports", "Ports on the network.")
            .gauges(to, all().map(|(labels, network)| (labels, network.ports as f64)))?;
        Family::new("network_leases", "DHCP leases of the network that have not ended.")
            .gauges(to, all().map(|(labels, network)| (labels, network.leases as f64)))?;
        let carried = all().filter_map(|(labels, network)| Some((labels, network.traffic?)));
        let carried: Vec<(Labels, Traffic)> = carried.collect();
        let help = [
            "Bytes between the network's guests and the host, or through it; not between guests.",
            "Packets between the network's guests and the host, or through it; not between guests.",
            "Packets that the network's bridge dropped between guests and host.",
        ];
        traffic(to, ["network", "network_packets", "network_dropped_packets"], help, &carried)
    }

    fn servers(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let served: Vec<(Labels, &dhcp::Counts)> = self
            .networks
            .iter()
            .filter_map(|network| Some((network_labels(network), network.servers.as_ref()?)))
            .collect();
        let by = |label: &'static str, list: fn(&dhcp::Counts) -> &Vec<(&'static str, u64)>| {
            let each = move |(labels, counts): &(Labels, &dhcp::Counts)| {
                let with = |(name, count): &(&'static str, u64)| {
                    (labels.iter().cloned().chain([(label, (*name).to_owned())]).collect(), *count)
                };
                list(counts).iter().map(with).collect::<Vec<(Labels, u64)>>()
            };
            served.iter().flat_map(each).collect::<Vec<_>>().into_iter()
        };
        Family::new("dhcp_messages_received", "DHCP messages of clients, by type.")
            .counters(to, by("type", |counts| &counts.dhcp_received))?;
        Family::new("dhcp_messages_sent", "DHCP replies, by type.")
            .counters(to, by("type", |counts| &counts.dhcp_sent))?;
        Family::new("dhcp6_messages_received", "DHCPv6 messages and router solicitations of guests, by type.")
            .counters(to, by("type", |counts| &counts.dhcp6_received))?;
        Family::new("dhcp6_messages_sent", "DHCPv6 replies and router advertisements, by type.")
            .counters(to, by("type", |counts| &counts.dhcp6_sent))?;
        Family::new("dhcp_reply_latency", "From a DHCP message to its reply; a lease is on disk by then.")
            .latencies(to, served.iter().map(|(labels, counts)| (labels.clone(), &counts.dhcp_latency)))?;
        Family::new("dns_queries", "DNS queries that were answered, by result.")
            .counters(to, by("result", |counts| &counts.dns_answers))?;
        Family::new("dns_latency", "From a DNS query to its answer, other servers' time included.")
            .latencies(to, served.iter().map(|(labels, counts)| (labels.clone(), &counts.dns_latency)))
    }

    fn ports(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let carried = self.ports.iter().filter_map(|port| Some((port_labels(port), port.traffic?)));
        let carried: Vec<(Labels, Traffic)> = carried.collect();
        let help = [
            "Bytes the port carried.",
            "Packets the port carried.",
            "Packets the port dropped: what a guest did not read in time, say.",
        ];
        traffic(to, ["port", "port_packets", "port_dropped_packets"], help, &carried)?;
        let guarded = self.ports.iter().filter_map(|port| Some((port_labels(port), port.dropped?)));
        let by_reason = guarded.flat_map(|(labels, dropped)| {
            let netd_api::Dropped { mac, vlan, arp, nd, ip, dhcp, ra } = dropped;
            let reasons =
                [("mac", mac), ("vlan", vlan), ("arp", arp), ("nd", nd), ("ip", ip), ("dhcp", dhcp), ("ra", ra)];
            reasons
                .map(|(reason, count)| (labels.iter().cloned().chain([("reason", reason.to_owned())]).collect(), count))
        });
        let help = "Frames from a guest that its port's guards dropped, by what was wrong with them.";
        Family::new("guard_dropped_packets", help).counters(to, by_reason)
    }
}

/// Bytes, packets and drops of links in both directions.
fn traffic(
    to: &mut DescriptorEncoder<'_>,
    names: [&'static str; 3],
    help: [&'static str; 3],
    links: &[(Labels, Traffic)],
) -> fmt::Result {
    let both = |of: fn(Flow) -> u64| {
        let each = move |(labels, traffic): &(Labels, Traffic)| {
            let flows = [("from_guest", traffic.from_guests), ("to_guest", traffic.to_guests)];
            flows.map(|(direction, flow)| {
                (labels.iter().cloned().chain([("direction", direction.to_owned())]).collect(), of(flow))
            })
        };
        links.iter().flat_map(each).collect::<Vec<(Labels, u64)>>().into_iter()
    };
    Family::new(names[0], help[0]).in_unit(Unit::Bytes).counters(to, both(|flow| flow.bytes))?;
    Family::new(names[1], help[1]).counters(to, both(|flow| flow.packets))?;
    Family::new(names[2], help[2]).counters(to, both(|flow| flow.drops))
}

fn network_labels(network: &NetworkFacts) -> Labels {
    vec![("network", network.name.clone())]
}

fn port_labels(port: &PortFacts) -> Labels {
    let mut labels = vec![("network", port.network.clone()), ("interface", port.interface.clone())];
    labels.extend(port.guest.clone().map(|guest| ("guest", guest)));
    labels
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_fact_has_its_line_and_every_metric_its_help() {
        let flow = |bytes| Flow { bytes, packets: 2, drops: 1 };
        let carried = Traffic { from_guests: flow(100), to_guests: flow(200) };
        let mut servers = dhcp::Counts {
            dhcp_received: vec![("discover", 3)],
            dhcp_sent: vec![("offer", 2)],
            dhcp6_received: vec![("solicit", 5)],
            dhcp6_sent: vec![("router-advertisement", 6)],
            dns_answers: vec![("nxdomain", 1)],
            ..dhcp::Counts::default()
        };
        servers.dhcp_latency.classes[0] = 1;
        servers.dhcp_latency.classes[12] = 1;
        servers.dhcp_latency.sum = Duration::from_millis(6500);
        let network = NetworkFacts {
            name: "default".into(),
            active: true,
            ports: 1,
            leases: 4,
            traffic: Some(carried),
            servers: Some(servers),
        };
        let port = PortFacts {
            interface: "vnet0".into(),
            network: "default".into(),
            guest: Some("a \"quoted\\name".into()),
            traffic: Some(carried),
            dropped: Some(netd_api::Dropped { arp: 5, ..netd_api::Dropped::default() }),
        };
        let facts = Facts {
            version: "1.2.3",
            uptime: Duration::from_millis(1500),
            networks: vec![network, NetworkFacts { name: "idle".into(), ..NetworkFacts::default() }],
            ports: vec![port],
            rewrites: vec![("inet", 7)],
            heals: vec![("bridge", 1)],
        };
        let text = page(facts).unwrap();
        let guest = r#"network="default",interface="vnet0",guest="a \"quoted\\name""#;
        for line in [
            r#"netd_build_info{version="1.2.3"} 1"#,
            "# UNIT netd_uptime_seconds seconds",
            "netd_uptime_seconds 1.5",
            r#"netd_nft_table_replacements_total{family="inet"} 7"#,
            r#"netd_heals_total{what="bridge"} 1"#,
            r#"netd_network_active{network="default"} 1.0"#,
            r#"netd_network_active{network="idle"} 0.0"#,
            r#"netd_network_leases{network="default"} 4.0"#,
            r#"netd_network_bytes_total{network="default",direction="from_guest"} 100"#,
            r#"netd_network_packets_total{network="default",direction="to_guest"} 2"#,
            r#"netd_dhcp_messages_received_total{network="default",type="discover"} 3"#,
            r#"netd_dhcp_messages_sent_total{network="default",type="offer"} 2"#,
            r#"netd_dhcp6_messages_received_total{network="default",type="solicit"} 5"#,
            r#"netd_dhcp6_messages_sent_total{network="default",type="router-advertisement"} 6"#,
            "# TYPE netd_dhcp_reply_latency_seconds histogram",
            r#"netd_dhcp_reply_latency_seconds_sum{network="default"} 6.5"#,
            r#"netd_dhcp_reply_latency_seconds_bucket{le="5.0",network="default"} 1"#,
            r#"netd_dhcp_reply_latency_seconds_bucket{le="+Inf",network="default"} 2"#,
            r#"netd_dns_queries_total{network="default",result="nxdomain"} 1"#,
            &format!(r#"netd_port_bytes_total{{{guest},direction="to_guest"}} 200"#),
            &format!(r#"netd_port_dropped_packets_total{{{guest},direction="to_guest"}} 1"#),
            &format!(r#"netd_guard_dropped_packets_total{{{guest},reason="arp"}} 5"#),
        ] {
            assert!(text.lines().any(|known| known == line), "no line {line} in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
        let named = |kind: &str| text.lines().filter(|line| line.starts_with(kind)).count();
        assert_eq!(named("# HELP netd_"), named("# TYPE netd_"));
    }
}
