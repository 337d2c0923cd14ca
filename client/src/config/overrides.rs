//! Flags and environment variables that change every account of a run.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::file::{check_aor, host_port};
use super::secret::PASSWORD_VARIABLE;
use super::{Config, ConfigError};
use crate::api::{AccountConfig, PathPolicy, Secret, SrtpMode, TransportChoice};

/// What flags or variables set; `None` leaves the file's value.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Overrides {
    /// An account from the command line instead of the file's.
    pub aor: Option<String>,
    /// Digest user.
    pub auth_user: Option<String>,
    /// `host[:port]`.
    pub edge: Option<String>,
    /// SIP transport.
    pub transport: Option<TransportChoice>,
    /// Name server.
    pub dns: Option<SocketAddr>,
    /// Extra trust anchors.
    pub tls_ca: Option<PathBuf>,
    /// Media path policy.
    pub path: Option<PathPolicy>,
    /// SRTP.
    pub srtp: Option<SrtpMode>,
    /// Local SIP address.
    pub listen: Option<SocketAddr>,
    /// Seconds before an unanswered call ends.
    pub ring_timeout_s: Option<u64>,
    /// Sound input.
    pub input: Option<String>,
    /// Sound output.
    pub output: Option<String>,
}

impl Overrides {
    pub(super) fn apply(&self, config: &mut Config) -> Result<(), ConfigError> {
        if let Some(aor) = &self.aor {
            check_aor(aor).map_err(ConfigError::Override)?;
            let known = config.accounts.iter().find(|account| account.aor == *aor).cloned();
            let account = known.unwrap_or_else(|| AccountConfig { aor: aor.clone(), ..config.base.clone() });
            config.accounts = vec![account];
        }
        if let Some(edge) = &self.edge {
            host_port(edge, 1).map_err(ConfigError::Override)?;
        }
        let password = std::env::var(PASSWORD_VARIABLE).ok().map(Secret::new);
        let Config { accounts, base, .. } = config;
        for account in accounts.iter_mut().chain([base]) {
            self.apply_to(account);
            if account.password.is_none() || self.aor.is_some() {
                account.password = password.clone().or(account.password.take());
            }
        }
        if let Some(first) = config.accounts.first_mut() {
            // Two accounts cannot share an address, so the first one gets it.
            first.listen = self.listen.or(first.listen);
        }
        config.base.listen = self.listen.or(config.base.listen);
        replace(&mut config.sound.input, self.input.as_ref());
        replace(&mut config.sound.output, self.output.as_ref());
        Ok(())
    }

    fn apply_to(&self, account: &mut AccountConfig) {
        replace(&mut account.auth_user, self.auth_user.as_ref());
        replace(&mut account.edge, self.edge.as_ref());
        replace(&mut account.dns, self.dns.as_ref());
        replace(&mut account.tls_ca, self.tls_ca.as_ref());
        account.transport = self.transport.unwrap_or(account.transport);
        account.policy = self.path.unwrap_or(account.policy);
        account.srtp = self.srtp.unwrap_or(account.srtp);
        account.ring_timeout_ms = self.ring_timeout_s.map_or(account.ring_timeout_ms, |s| s.saturating_mul(1000));
    }
}

fn replace<T: Clone>(value: &mut Option<T>, new: Option<&T>) {
    if let Some(new) = new {
        *value = Some(new.clone());
    }
}
