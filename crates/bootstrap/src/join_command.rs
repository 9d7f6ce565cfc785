//! The command with which another machine joins, as it is shown to people.
//!
//! Pure.

use crate::certificate_key::CertificateKey;
use crate::token::BootstrapToken;

/// On one line; `endpoint` is `host:port`.
pub fn join_command(
    endpoint: &str,
    token: &BootstrapToken,
    pins: &[String],
    control_plane: bool,
    certificate_key: Option<&CertificateKey>,
) -> String {
    let mut command = format!("kedge join {endpoint} --token {token} ");
    for pin in pins {
        command.push_str(&format!("--discovery-token-ca-cert-hash {pin} "));
    }
    if control_plane {
        command.push_str("--control-plane ");
    }
    if let Some(key) = certificate_key {
        command.push_str(&format!("--certificate-key {key} "));
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_has_what_is_needed() {
        let token = "abcdef.0123456789abcdef".parse().unwrap();
        let pins = ["sha256:aa".to_owned()];
        assert_eq!(
            join_command("10.0.0.1:6443", &token, &pins, false, None),
            "kedge join 10.0.0.1:6443 --token abcdef.0123456789abcdef --discovery-token-ca-cert-hash sha256:aa "
        );
        let key = CertificateKey::generate().unwrap();
        let command = join_command("10.0.0.1:6443", &token, &pins, true, Some(&key));
        assert!(command.ends_with(&format!("--control-plane --certificate-key {key} ")), "{command}");
    }
}
