//! Name lookup with the guard in it: nobody is told an address that was not vetted, nor one of a name with another that
//! was refused.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use futures::future::BoxFuture;
use ipnet::IpNet;
use tokio::sync::Semaphore;

use super::egress::{Denied, vet};

/// Lookups under way at once for one endpoint. A lookup that hangs holds its place after the attempt has given up on
/// it, so that a dead name server takes no more threads than this from each endpoint.
pub const LOOKUPS_MAX: usize = 4;

/// Lookups under way at once in the process. The system's lookup blocks a thread for as long as it likes, and the store, the
/// disk's watch and the plugins folder need such threads too: of the 512 that there are at most, some are always left.
pub(super) const LOOKUPS_ALL_MAX: usize = 256;

static PLACES: Semaphore = Semaphore::const_new(LOOKUPS_ALL_MAX);

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

/// Why a host gave no addresses to connect to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LookupError {
    /// It leads nowhere, for now.
    #[error("name lookup of `{name}` failed: {cause}")]
    Failed { name: String, cause: io::Error },
    /// At least one of its addresses is refused.
    #[error("`{name}` leads inside: {denied}")]
    Denied { name: String, denied: Denied },
    /// The address that stands in the URL is refused.
    #[error("{0}")]
    DeniedLiteral(Denied),
}

/// What one endpoint's hosts are turned into addresses with.
pub(super) struct GuardedResolver {
    lookup: Arc<dyn Lookup>,
    allow: Arc<[IpNet]>,
    places: Arc<Semaphore>,
}

impl GuardedResolver {
    pub(super) fn new(lookup: Arc<dyn Lookup>, allow: Arc<[IpNet]>) -> Self {
        Self { lookup, allow, places: Arc::new(Semaphore::new(LOOKUPS_MAX)) }
    }

    /// Every address of `host`, a name or an address as it stands in a URL: all of them vetted, or none told.
    pub(super) async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, LookupError> {
        match self.literal(host)? {
            Some(address) => Ok(vec![address]),
            None => self.named(host.to_owned()).await,
        }
    }

    /// `host` as an address, where it is one, vetted.
    pub(super) fn literal(&self, host: &str) -> Result<Option<IpAddr>, LookupError> {
        let Ok(address) = host.trim_start_matches('[').trim_end_matches(']').parse() else { return Ok(None) };
        vet(address, &self.allow).map_err(LookupError::DeniedLiteral)?;
        Ok(Some(address))
    }

    async fn named(&self, name: String) -> Result<Vec<IpAddr>, LookupError> {
        let failed = |name, cause| LookupError::Failed { name, cause };
        let place = match Arc::clone(&self.places).acquire_owned().await {
            Ok(place) => place,
            Err(closed) => return Err(failed(name, io::Error::other(closed))),
        };
        // A task of its own, because the system's lookup can't be cancelled and must keep its place until it ends.
        let looking_up = self.lookup.lookup(name.clone());
        let looked_up = tokio::spawn(async move {
            let of_all = PLACES.acquire().await;
            let addresses = looking_up.await;
            drop((place, of_all));
            addresses
        });
        let looked_up = looked_up.await.unwrap_or_else(|gone| Err(io::Error::other(gone)));
        match looked_up {
            Ok(addresses) if addresses.is_empty() => Err(failed(name, io::Error::other("it has no address"))),
            Ok(addresses) => self.vetted(name, addresses),
            Err(cause) => Err(failed(name, cause)),
        }
    }

    /// All addresses or none: a name that mixes public and inside addresses is not to be trusted with either.
    fn vetted(&self, name: String, addresses: Vec<IpAddr>) -> Result<Vec<IpAddr>, LookupError> {
        match addresses.iter().find_map(|address| vet(*address, &self.allow).err()) {
            Some(denied) => Err(LookupError::Denied { name, denied }),
            None => Ok(addresses),
        }
    }
}
