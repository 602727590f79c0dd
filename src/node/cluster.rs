//! What the nodes of a cluster have in common: the connection to NATS, the membership, and for edges the routes that follow from it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::watch;

use super::NodeError;
use crate::{
    config::{self, Config},
    edge::{EdgeAddress, Routes, Sight},
    members::{ClusterSecret, View},
    model::{Layout, Secret, Slot},
    nats::{Auth, ClientCertificate, Link, Nats, Settings, Tls},
};

/// How the cluster divides its topics.
pub(super) fn layout(config: &Config) -> Result<Layout, NodeError> {
    config.layout().ok_or(NodeError::NotSet("cluster.slots"))
}

/// Begins to connect to NATS.
pub(super) async fn connect(config: &Config) -> Result<Nats, NodeError> {
    let settings = Settings {
        urls: config.nats.urls.clone(),
        cluster: config.cluster.name.clone(),
        name: config.node(),
        auth: auth(&config.nats)?,
        tls: tls(&config.nats),
    };
    Ok(Nats::connect(&settings).await?)
}

fn set(path: &Path) -> Option<PathBuf> {
    (!path.as_os_str().is_empty()).then(|| path.to_owned())
}

fn auth(nats: &config::Nats) -> Result<Auth, NodeError> {
    if !nats.user.is_empty() {
        let password = secret(&nats.password, "nats.password_file", &nats.password_file)?;
        return Ok(Auth::Password {
            user: nats.user.clone(),
            password: password.unwrap_or_else(|| "".into()),
        });
    }
    if let Some(token) = secret(&nats.token, "nats.token_file", &nats.token_file)? {
        return Ok(Auth::Token(token));
    }
    let file = set(&nats.nkey_file).map(Auth::NkeyFile);
    let file = file.or_else(|| set(&nats.credentials_file).map(Auth::CredentialsFile));
    Ok(file.unwrap_or_default())
}

/// The token of the admin port, if it has one.
pub(super) fn admin_token(config: &Config) -> Result<Option<Secret>, NodeError> {
    secret(&config.admin.token, "admin.token_file", &config.admin.token_file)
}

/// What this node and the others know each other by, if anything.
pub(super) fn secret_of(config: &Config) -> Result<ClusterSecret, NodeError> {
    let cluster = &config.cluster;
    let Some(secret) = secret(&cluster.secret, "cluster.secret_file", &cluster.secret_file)? else {
        return Ok(ClusterSecret::default());
    };
    if secret.reveal().len() < ClusterSecret::LEAST {
        return Err(NodeError::ShortSecret("cluster.secret_file"));
    }
    Ok(ClusterSecret::new(secret.reveal()))
}

/// A secret that is set, or in a file; what breaks the line at the end of a file is not part of it.
pub(super) fn secret(set_to: &Secret, setting: &'static str, file: &Path) -> Result<Option<Secret>, NodeError> {
    let Some(path) = set(file) else {
        return Ok((!set_to.is_empty()).then(|| set_to.clone()));
    };
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.trim_end_matches(['\r', '\n']).into())),
        Err(cause) => Err(NodeError::SecretFile { setting, path, cause }),
    }
}

fn tls(nats: &config::Nats) -> Tls {
    let client = set(&nats.tls_cert).zip(set(&nats.tls_key));
    Tls {
        required: nats.tls_required,
        ca_file: set(&nats.tls_ca),
        client: client.map(|(cert_file, key_file)| ClientCertificate { cert_file, key_file }),
    }
}

/// The routes that a view of the cluster gives.
fn routes(view: &View, link: Link, layout: Layout, me: &str) -> Routes {
    let edges: Vec<_> = view.edges().filter(|edge| edge.is_on_the_ring()).collect();
    let owner = |slot: Slot| {
        let owner = view.ring().owner(slot.0)?;
        edges.binary_search_by(|edge| (*edge.node).cmp(owner)).ok()
    };
    let addresses = edges.iter().map(|edge| EdgeAddress {
        node: edge.node.to_string(),
        url: (!edge.http.is_empty()).then(|| edge.http.clone()),
    });
    let sight = match (link.up, view.is_settled()) {
        (false, _) => Sight::Lost,
        (true, false) => Sight::Young,
        (true, true) => Sight::Clear,
    };
    Routes::new(layout, me, addresses.collect(), owner, sight)
}

/// Whether this node has heard its cluster since it started. Once it has, it goes on with what it knows, whatever it loses; before that it
/// can do nothing that another node could not do better.
#[derive(Debug, Clone, Default)]
pub(super) struct Heard(Arc<AtomicBool>);

impl Heard {
    /// Why the node is not ready yet, if it is not.
    pub(super) fn why_not(&self) -> Option<String> {
        let heard = self.0.load(Ordering::Relaxed);
        (!heard).then(|| {
            "the node has not heard the others yet: see whether it reaches NATS (`nats.urls`), and whether its log names nodes of another layout"
                .to_owned()
        })
    }

    /// Waits until somebody is known to hold each shard, or until everybody has had the time to be heard. Who hears only nodes of another layout
    /// has not heard its cluster: its streams would wait for ever.
    pub(super) async fn listen(self, mut view: watch::Receiver<Arc<View>>, layout: Layout) {
        let is_held = |view: &View, shard: u16| !view.holders(shard).is_empty();
        let has_heard = |view: &Arc<View>| {
            let is_stray = || !view.strangers().is_empty() && !(0..layout.shards()).any(|shard| is_held(view, shard));
            (0..layout.shards()).all(|shard| is_held(view, shard)) || (view.is_settled() && !is_stray())
        };
        if view.wait_for(has_heard).await.is_ok() {
            self.0.store(true, Ordering::Relaxed);
        }
        // It is not taken back.
        std::future::pending::<()>().await;
    }
}

/// The routes before anybody was heard.
pub(super) fn no_routes(layout: Layout, me: &str) -> watch::Sender<Arc<Routes>> {
    let nobody = Routes::new(layout, me, Vec::new(), |_| None, Sight::Lost);
    watch::Sender::new(Arc::new(nobody))
}

/// Keeps the routes up to date, once for all workers.
pub(super) async fn keep_routes(
    mut view: watch::Receiver<Arc<View>>,
    mut link: watch::Receiver<Link>,
    layout: Layout,
    me: String,
    sender: watch::Sender<Arc<Routes>>,
) {
    loop {
        let seen = Arc::clone(&view.borrow_and_update());
        let linked = *link.borrow_and_update();
        let next = routes(&seen, linked, layout, &me);
        // Most changes are of no consequence to them.
        sender.send_if_modified(|routes| {
            let differs = **routes != next;
            if differs {
                *routes = Arc::new(next);
            }
            differs
        });
        let changed = tokio::select! {
            changed = view.changed() => changed,
            changed = link.changed() => changed,
        };
        if changed.is_err() {
            // What is over does not change any more.
            return std::future::pending().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_come_from_where_they_are_set() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("password");
        fs::write(&file, "open sesame\r\n").expect("written");
        let mut nats = config::Nats {
            user: "ali".to_owned(),
            password_file: file,
            ..config::Nats::default()
        };
        let Ok(Auth::Password { user, password }) = auth(&nats) else {
            panic!("no password");
        };
        assert_eq!((user.as_str(), password.reveal()), ("ali", "open sesame"));
        nats.password_file = dir.path().join("missing");
        let error = auth(&nats).expect_err("missing").to_string();
        assert!(error.contains("`nats.password_file` names"), "{error}");
        assert!(matches!(auth(&config::Nats::default()), Ok(Auth::None)));
    }
}
