//! What is said at the end: kubeadm's text with the commands by which others join.

use kedge_bootstrap::{BootstrapToken, CertificateKey, join_command};

/// What the text is made of.
pub(super) struct Closing<'a> {
    pub(super) endpoint: &'a str,
    pub(super) token: &'a BootstrapToken,
    pub(super) pin: String,
    /// Whether the cluster has an endpoint that several control planes share.
    pub(super) is_shared: bool,
    /// The key, where certificates were uploaded.
    pub(super) key: Option<&'a CertificateKey>,
    pub(super) hides_token: bool,
    pub(super) hides_key: bool,
    pub(super) has_network: bool,
}

const HEAD: &str = "
Your Kubernetes control-plane has initialized successfully!

To start using your cluster, you need to run the following as a regular user:

  mkdir -p $HOME/.kube
  sudo cp -i /etc/kubernetes/admin.conf $HOME/.kube/config
  sudo chown $(id -u):$(id -g) $HOME/.kube/config

Alternatively, if you are the root user, you can run:

  export KUBECONFIG=/etc/kubernetes/admin.conf

";

const NETWORK: &str = "You should now deploy a pod network to the cluster.
Run \"kubectl apply -f [podnetwork].yaml\" with one of the options listed at:
  https://kubernetes.io/docs/concepts/cluster-administration/addons/
or run \"kedge init phase addon network\" for kedge's own.

";

impl Closing<'_> {
    pub(super) fn text(&self) -> String {
        let network = if self.has_network { "" } else { NETWORK };
        let control_planes = if self.is_shared { self.control_planes() } else { String::new() };
        let worker = self.command(false);
        format!(
            "{HEAD}{network}{control_planes}Then you can join any number of worker nodes by running the following on each \
             as root:\n\n{worker}"
        )
    }

    fn control_planes(&self) -> String {
        let command = self.command(true);
        match self.key {
            Some(_) => format!(
                "You can now join any number of control-plane nodes running the following command on each as root:\n\n  \
                 {command}\n\nPlease note that the certificate-key gives access to cluster sensitive data, keep it \
                 secret!\nAs a safeguard, uploaded-certs will be deleted in two hours; If necessary, you can use\n\
                 \"kedge init phase upload-certs --upload-certs\" to reload certs afterward.\n\n"
            ),
            None => format!(
                "You can now join any number of control-plane nodes by copying certificate authorities\n\
                 and service account keys on each node and then running the following as root:\n\n  {command}\n\n"
            ),
        }
    }

    /// On two or three lines, as upstream breaks it.
    fn command(&self, control_plane: bool) -> String {
        let key = if control_plane { self.key } else { None };
        let line = join_command(self.endpoint, self.token, std::slice::from_ref(&self.pin), control_plane, key);
        let mut line = line.trim_end().replace(" --discovery-token", " \\\n\t--discovery-token");
        line = line.replace(" --control-plane", " \\\n\t--control-plane");
        if self.hides_token {
            line = line.replace(&self.token.to_string(), "<value withheld>");
        }
        if let (Some(key), true) = (key, self.hides_key) {
            line = line.replace(&key.to_string(), "<value withheld>");
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_upstreams() {
        let token: BootstrapToken = "abcdef.0123456789abcdef".parse().unwrap();
        let key = CertificateKey::generate().unwrap();
        let mut closing = Closing {
            endpoint: "lb:6443",
            token: &token,
            pin: "sha256:aa".to_owned(),
            is_shared: true,
            key: Some(&key),
            hides_token: false,
            hides_key: false,
            has_network: false,
        };
        let text = closing.text();
        let worker =
            "kedge join lb:6443 --token abcdef.0123456789abcdef \\\n\t--discovery-token-ca-cert-hash sha256:aa";
        assert!(text.ends_with(worker), "{text}");
        assert!(text.contains(&format!("{worker} \\\n\t--control-plane --certificate-key {key}\n")), "{text}");
        (closing.hides_token, closing.hides_key) = (true, true);
        let text = closing.text();
        assert!(!text.contains("0123456789abcdef") && !text.contains(&key.to_string()), "{text}");
        closing.is_shared = false;
        assert!(!closing.text().contains("control-plane nodes"));
    }
}
