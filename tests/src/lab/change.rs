//! What happens to a network under a running call: new addresses, and cables pulled out.

use super::network::{Host, Network};

impl Network {
    /// A new lease: the old IPv4 address of a host disappears.
    ///
    /// # Errors
    ///
    /// What `ip` said.
    pub fn readdress(&self, host: Host, address: &str) -> Result<(), String> {
        let namespace = self.host(host);
        let gateway = gateway(&namespace.ip(&["-4", "route", "show", "default"])?);
        // A batch takes no options, and its flush would take the IPv6 addresses along.
        namespace.ip(&["-4", "addr", "flush", "dev", "eth0"])?;
        namespace.ip_batch(&format!("addr add {address}/24 dev eth0\nroute replace default via {gateway}\n"))
    }

    /// A router gets a new public address, and with it every mapping is lost.
    ///
    /// # Errors
    ///
    /// What `ip` said.
    pub fn set_public_address(&self, router: Host, address: &str) -> Result<(), String> {
        self.readdress(router, address)?;
        self.flush_mappings(router)
    }

    /// A host's cable out, or in again: its addresses stay, its routes come back.
    ///
    /// # Errors
    ///
    /// What `ip` said.
    pub fn set_link(&self, host: Host, up: bool) -> Result<(), String> {
        let namespace = self.host(host);
        if !up {
            return namespace.ip(&["link", "set", "eth0", "down"]).map(|_| ());
        }
        let addresses = namespace.ip(&["-4", "-o", "addr", "show", "dev", "eth0"])?;
        namespace.ip(&["link", "set", "eth0", "up"])?;
        let address = addresses.split_whitespace().skip_while(|word| *word != "inet").nth(1).unwrap_or_default();
        match address.rsplit_once('.') {
            Some((network, _)) => {
                namespace.ip(&["route", "replace", "default", "via", &format!("{network}.1")]).map(|_| ())
            }
            None => Ok(()),
        }
    }

    /// The largest packet that passes a host's line.
    ///
    /// # Errors
    ///
    /// What `ip` said.
    pub fn set_mtu(&self, host: Host, bytes: u32) -> Result<(), String> {
        let (holder, port) = self.port_of(host);
        let bytes = bytes.to_string();
        holder.ip(&["link", "set", &port, "mtu", &bytes])?;
        self.host(host).ip(&["link", "set", "eth0", "mtu", &bytes]).map(|_| ())
    }
}

/// `default via A.B.C.D dev eth0`
fn gateway(route: &str) -> String {
    route.split_whitespace().skip_while(|word| *word != "via").nth(1).unwrap_or_default().to_owned()
}
