//! Name lookup with the guard in it: a connection is only ever made to addresses that were vetted, all of them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures::future::BoxFuture;
use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::Semaphore;

use super::egress::{Denied, vet};

/// Lookups under way at once for one endpoint. A lookup that hangs holds its place after the attempt has given up on
/// it, so that a dead name server takes no more threads than this from each endpoint.
pub const LOOKUPS_MAX: usize = 4;

/// Turns a name into addresses.
pub trait Lookup: Send + Sync + 'static {
    /// Every address of `name`.
    fn lookup(&self, name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// The machine's own: hosts file, then name servers.
#[derive(Debug)]
pub struct SystemLookup;

impl Lookup for SystemLookup {
    fn lookup(&self, name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let addresses = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(addresses.map(|address| address.ip()).collect())
        })
    }
}

/// Why a name gave no addresses to connect to.
#[derive(Debug, thiserror::Error)]
pub(super) enum LookupError {
    /// It leads nowhere, for now.
    #[error("name lookup of `{name}` failed: {cause}")]
    Failed { name: String, cause: io::Error },
    /// At least one of its addresses is refused.
    #[error("`{name}` leads inside: {denied}")]
    Denied { name: String, denied: Denied },
}

/// The resolver of one endpoint.
pub(super) struct GuardedResolver {
    lookup: Arc<dyn Lookup>,
    allow: Arc<[IpNet]>,
    places: Arc<Semaphore>,
}

impl GuardedResolver {
    pub(super) fn new(lookup: Arc<dyn Lookup>, allow: Arc<[IpNet]>) -> Self {
        Self { lookup, allow, places: Arc::new(Semaphore::new(LOOKUPS_MAX)) }
    }
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let name = name.as_str().to_owned();
        let (lookup, allow, places) = (Arc::clone(&self.lookup), Arc::clone(&self.allow), Arc::clone(&self.places));
        Box::pin(async move {
            let place = places.acquire_owned().await?;
            // A task of its own, because the system's lookup can't be cancelled and must keep its place until it ends.
            let looking_up = lookup.lookup(name.clone());
            let looked_up = tokio::spawn(async move {
                let addresses = looking_up.await;
                drop(place);
                addresses
            });
            Ok(vetted(name, looked_up.await?, &allow)?)
        })
    }
}

/// All addresses or none: a name that mixes public and inside addresses is not to be trusted with either.
fn vetted(name: String, looked_up: io::Result<Vec<IpAddr>>, allow: &[IpNet]) -> Result<Addrs, LookupError> {
    let addresses = match looked_up {
        Ok(addresses) if addresses.is_empty() => Err(io::Error::other("it has no address")),
        looked_up => looked_up,
    };
    let addresses = match addresses {
        Ok(addresses) => addresses,
        Err(cause) => return Err(LookupError::Failed { name, cause }),
    };
    if let Some(denied) = addresses.iter().find_map(|address| vet(*address, allow).err()) {
        return Err(LookupError::Denied { name, denied });
    }
    // Port 0 stands for the URL's.
    Ok(Box::new(addresses.into_iter().map(|address| SocketAddr::new(address, 0))))
}
