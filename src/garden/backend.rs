//! All containers of Garden's clients, by handle: make, find, list, destroy.

use super::fan::Budget;
use super::lost::Lost;
use super::member::Member;
use super::plan::{self, Wanted};
use super::record::{self, Record};
use super::subject::Subject;
use super::{Done, GardenError};
use crate::container::{Container, Fault, Host, Manner, RootDriver};
use crate::exec::cancel::{Cancel, Canceller, pair};
use crate::image::registry::settings::Settings as Registries;
use crate::model::garden::ContainerSpec;
use crate::unit::Handle;
use smol::channel::{Receiver, Sender, bounded};
use smol::lock::Semaphore;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Containers that are removed side by side: more would be no faster, and would leave no thread of
/// the pool and little of the processors to anybody else.
const REMOVALS_MAX: usize = 64;

/// What the box is set to.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Directory of `<stack>.tar.zst` files.
    pub stacks: PathBuf,
    /// How images are fetched.
    pub registries: Registries,
    /// The root of who names none: a stack's name, or a path. `None`: the first stack by name.
    pub default_rootfs: Option<String>,
    /// How roots are made of layers.
    pub root: RootDriver,
    /// What else containers are made with; those that live keep theirs.
    pub manner: Manner,
    /// Containers of Garden's clients at a time.
    pub containers_max: u32,
    /// How long a container stays without a request when its client does not say; 0: for ever.
    pub grace: Duration,
    /// Where mapped ports are reached.
    pub external: Ipv4Addr,
    /// Containers' directories.
    pub depot: PathBuf,
    /// Memory of the box.
    pub memory_bytes: u64,
    /// How far the store may grow.
    pub store_max_bytes: u64,
}

/// All containers of Garden's clients. Clones are the same backend.
#[derive(Clone)]
pub struct Backend {
    pub(super) shared: Arc<Shared>,
}

/// State and tools.
pub(super) struct Shared {
    pub(super) host: Arc<Host>,
    pub(super) settings: Settings,
    /// For outputs that nobody takes.
    pub(super) budget: Arc<Budget>,
    /// For input that nobody reads.
    pub(super) inputs: Arc<Budget>,
    places: Mutex<BTreeMap<String, Place>>,
    /// One for each removal that may begin.
    removals: Semaphore,
    /// Nanoseconds since 1970, or one more than the last.
    last_id: AtomicU64,
    last_stream: AtomicU64,
    /// A container has come or gone since it was last asked.
    changed: Sender<()>,
    pub(super) changes: Receiver<()>,
    /// The same for gone.
    went: Sender<()>,
    gone: Receiver<()>,
    /// Somebody asks for what is lost.
    wanted: Sender<()>,
    pub(super) wants: Receiver<()>,
    /// Open until the daemon ends.
    ending: Canceller,
    pub(super) ended: Cancel,
}

/// What is there under a handle.
pub(super) enum Place {
    /// It is being made, or was found and nobody has looked at it: nobody else gets the handle.
    Busy,
    /// It stands.
    Stands(Arc<Member>),
    /// It lives, and cannot be worked with.
    Lost(Arc<Lost>),
    /// Somebody destroys it.
    Leaves,
}

impl Backend {
    /// A backend without containers: see [`Backend::adopt`].
    pub fn new(host: Arc<Host>, settings: Settings) -> Backend {
        let (ending, ended) = pair();
        let (changed, changes) = bounded(1);
        let (went, gone) = bounded(1);
        let (wanted, wants) = bounded(1);
        Backend {
            shared: Arc::new(Shared {
                host,
                settings,
                budget: Arc::default(),
                inputs: Arc::default(),
                places: Mutex::default(),
                removals: Semaphore::new(REMOVALS_MAX),
                last_id: AtomicU64::new(0),
                last_stream: AtomicU64::new(0),
                changed,
                changes,
                went,
                gone,
                wanted,
                wants,
                ending,
                ended,
            }),
        }
    }

    /// What containers are made of; shared with the cell.
    pub fn host(&self) -> Arc<Host> {
        self.shared.host.clone()
    }

    /// Hears that a container has gone; one message stands for any number.
    pub fn gone(&self) -> Receiver<()> {
        self.shared.gone.clone()
    }

    /// The daemon ends: who waits for the end of a process is let go without a word, and nothing is
    /// destroyed by its grace time any more. Containers and processes go on.
    pub fn close(&self) {
        self.shared.ending.cancel();
        for place in self.shared.places().values() {
            if let Place::Stands(member) = place {
                member.stop_countdown();
            }
        }
    }

    /// Whether containers can be made at all.
    pub async fn ping(&self) -> Done<()> {
        Ok(())
    }

    /// Handles of the containers whose properties match all of `filter`, in order of name.
    pub fn list(&self, filter: &[(String, String)]) -> Vec<String> {
        let (host, settings) = (&self.shared.host, &self.shared.settings);
        let places = self.shared.places();
        let matching = places.iter().filter(|(_, place)| match place {
            Place::Stands(member) => member.matches(host, settings, filter),
            Place::Lost(lost) => lost.matches(filter),
            Place::Busy | Place::Leaves => false,
        });
        matching.map(|(handle, _)| handle.clone()).collect()
    }

    /// Makes a container and returns its handle. On any failure nothing of it is left.
    pub async fn create(&self, spec: ContainerSpec) -> Done<String> {
        let handle = match &*spec.handle {
            "" => self.shared.fresh_id().to_string(),
            chosen => chosen.to_owned(),
        };
        let claim = self.shared.claim(&handle)?;
        let wanted = Wanted::read(&spec)?;
        let (shared, name) = (self.shared.clone(), self.shared.fresh_id());
        let grace_ns = self.grace_of(spec.grace_time);
        // All of it on one thread: each change of threads costs a container as much as its rules do.
        let made = smol::unblock(move || {
            let root = shared.rootfs(&wanted.image, &spec.image)?;
            let record = Record::new(&handle, &spec, &root.env, root.bytes, now_ms());
            let record = Record { grace_ns, ..record };
            let image_bytes = root.bytes;
            let subject = Subject { handle, name, limits: spec.limits, image_bytes, oom_kills: 0 };
            let (handle, text) = (&subject.handle, record::to_text(&record));
            let made = plan::container(handle, &spec, wanted, &root, text)?;
            Ok((shared.make(&subject, made)?, record, subject.handle))
        });
        let (container, record, handle) = made.await?;
        let member = Member::new(container, record);
        claim.stands(member.clone());
        member.rest(&self.shared);
        Ok(handle)
    }

    /// Nanoseconds of grace for what a client says.
    fn grace_of(&self, asked: i64) -> u64 {
        match u64::try_from(asked) {
            Ok(nanos @ 1..) => nanos,
            _ => u64::try_from(self.shared.settings.grace.as_nanos()).unwrap_or(u64::MAX),
        }
    }

    /// Removes a container with everything that belongs to it.
    pub async fn destroy(&self, handle: &str) -> Done<()> {
        self.shared.clone().destroy(handle).await
    }
}

impl Shared {
    /// What is there, held for moments only. Who panicked with it in hand has left it whole.
    pub(super) fn places(&self) -> MutexGuard<'_, BTreeMap<String, Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The container of a handle.
    pub(super) fn member(&self, handle: &str) -> Done<Arc<Member>> {
        self.standing(&self.places(), handle).cloned()
    }

    /// The same for who has the places in hand. What is lost is looked at again soon.
    pub(super) fn standing<'a>(
        &self,
        places: &'a BTreeMap<String, Place>,
        handle: &str,
    ) -> Done<&'a Arc<Member>> {
        match places.get(handle) {
            Some(Place::Stands(member)) if member.container.is_lost() => {
                let _ = self.wanted.try_send(());
                Err(Lost::of(member).refusal())
            }
            Some(Place::Stands(member)) => Ok(member),
            Some(Place::Lost(lost)) => {
                let _ = self.wanted.try_send(());
                Err(lost.refusal())
            }
            Some(Place::Busy | Place::Leaves) | None => {
                Err(GardenError::UnknownHandle(handle.to_owned()))
            }
        }
    }

    /// A container has come or gone.
    pub(super) fn tell_change(&self) {
        let _ = self.changed.try_send(());
    }

    /// A container has gone.
    pub(super) fn tell_gone(&self) {
        self.tell_change();
        let _ = self.went.try_send(());
    }

    /// A name that no container of this box has had, as long as its clock does not go back.
    pub(super) fn fresh_id(&self) -> Handle {
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let clock = u64::try_from(clock).unwrap_or(u64::MAX);
        let next = |last: u64| Some(clock.max(last + 1));
        let last = self.last_id.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        let nanos = clock.max(last.unwrap_or_default() + 1);
        plan::id(nanos).parse().expect("digits of base 32 are a handle")
    }

    /// A number for a stream, told once.
    pub(super) fn fresh_stream(&self) -> String {
        (self.last_stream.fetch_add(1, Ordering::Relaxed) + 1).to_string()
    }

    /// Takes a handle for a container that is about to be made.
    fn claim(self: &Arc<Self>, handle: &str) -> Done<Claim> {
        let mut places = self.places();
        if places.contains_key(handle) {
            return Err(GardenError::Failed(format!("Handle '{handle}' already in use")));
        }
        if places.len() >= self.settings.containers_max as usize {
            return Err(GardenError::Failed("max containers reached".into()));
        }
        places.insert(handle.to_owned(), Place::Busy);
        Ok(Claim { shared: self.clone(), handle: handle.to_owned(), stands: None })
    }

    /// Makes the container itself. Blocking.
    fn make(
        &self,
        subject: &Subject,
        mut wanted: crate::container::ContainerSpec,
    ) -> Done<Container> {
        let (handle, name) = (&subject.handle, &subject.name);
        wanted.handle = name.clone();
        wanted.root = self.settings.root;
        wanted.manner = self.settings.manner.clone();
        match self.host.create(wanted, Fault::None) {
            Ok(container) => {
                crate::info!("container.created", handle = name, garden = handle);
                Ok(container)
            }
            Err(err) => {
                // What the creation's own undo could not take back is tried once more.
                if let Err(left) = self.host.destroy(name) {
                    let err = crate::log::chain(&left);
                    crate::error!("container.left", handle = name, garden = handle, err = err);
                }
                let err = subject.refused(&err);
                crate::warn!("container.refused", handle = name, garden = handle, err = err);
                Err(err)
            }
        }
    }

    /// Destroys a container; one that cannot be removed wholly stays, for another try.
    async fn destroy(self: Arc<Self>, handle: &str) -> Done<()> {
        let (name, place) = {
            let mut places = self.places();
            let name = match places.get(handle) {
                Some(Place::Stands(member)) => member.name.clone(),
                Some(Place::Lost(lost)) if lost.closed => return Err(lost.refusal()),
                Some(Place::Lost(lost)) => lost.name.clone(),
                Some(Place::Leaves) => {
                    return Err(GardenError::Failed("container already being destroyed".into()));
                }
                Some(Place::Busy) | None => {
                    return Err(GardenError::UnknownHandle(handle.to_owned()));
                }
            };
            (name, places.insert(handle.to_owned(), Place::Leaves).expect("just seen"))
        };
        self.remove(handle, name, place).await
    }

    /// Removes a container whose place says that it leaves. `before`: what it is if that fails.
    pub(super) async fn remove(
        self: Arc<Self>,
        handle: &str,
        name: Handle,
        before: Place,
    ) -> Done<()> {
        if let Place::Stands(member) = &before {
            member.stop_countdown();
        }
        let (shared, gone) = (self.clone(), name.clone());
        let turn = self.removals.acquire().await;
        let gone = smol::unblock(move || shared.host.destroy(&gone)).await;
        drop(turn);
        let mut places = self.places();
        if let Err(err) = gone {
            let err = match &before {
                Place::Stands(member) => {
                    // Nobody asks for it any more, as before: it is tried again after its time.
                    member.rest(&self);
                    member.refused(&err)
                }
                _ => GardenError::Failed(crate::log::chain(&err)),
            };
            crate::error!("container.left", handle = name, garden = handle, err = err);
            if matches!(before, Place::Lost(_)) {
                let _ = self.wanted.try_send(());
            }
            places.insert(handle.to_owned(), before);
            return Err(err);
        }
        places.remove(handle);
        drop(places);
        crate::info!("container.destroyed", handle = name, garden = handle);
        self.tell_gone();
        Ok(())
    }
}

/// A handle that nobody else gets while its container is made; given up when dropped.
struct Claim {
    shared: Arc<Shared>,
    handle: String,
    stands: Option<Arc<Member>>,
}

impl Claim {
    /// From now on clients see it.
    fn stands(mut self, member: Arc<Member>) {
        self.stands = Some(member);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut places = self.shared.places();
        match self.stands.take() {
            Some(member) => {
                let _ = self.shared.changed.try_send(());
                places.insert(self.handle.clone(), Place::Stands(member))
            }
            None => places.remove(&self.handle),
        };
    }
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
