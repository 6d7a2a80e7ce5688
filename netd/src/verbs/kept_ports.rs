//! Verbs about ports that stay: made for programs that open a tap by its name, and there until they are deleted.

use super::{Host, VerbError, Verbs, ports::view, random_mac};
use crate::registry::{Plug, PortRequest, Refusal};

impl<H: Host> Verbs<H> {
    /// Makes a port that stays, whoever ends: the daemon, and the program that uses the tap.
    pub async fn create_port(&self, request: &PortRequest) -> Result<netd_api::Port, VerbError> {
        let _turn = self.turn.lock().await;
        let mut spec = self.registry().add_port(request, random_mac)?;
        if let Plug::Macvtap { .. } = spec.plug {
            return Err(Refusal::KeptMacvtap(spec.network.to_string()).into());
        }
        spec.kept = true;
        // Unrecorded, it would be nobody's after the daemon's end: then it is deleted again.
        let (port, _queues) = self.open_port(&spec).await?;
        self.registry_mut().port_added(port.clone());
        self.reshape(&spec.network).await;
        self.publish_ports(&spec.network);
        tracing::info!("port {} of network {} for {}, kept", port.interface, port.network, port.mac);
        Ok(view(&port))
    }

    /// Deletes a port that stays. What has its tap open keeps a descriptor of nothing.
    pub async fn delete_port(&self, interface: &str) -> Result<netd_api::Port, VerbError> {
        let _turn = self.turn.lock().await;
        let port = self.registry().delete_port(interface)?.clone();
        self.host.delete_port(&port).await?;
        self.forget_ports(&[port.index]).await;
        Ok(view(&port))
    }
}
