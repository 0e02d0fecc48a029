//! The least that the kernel takes for a container on this box, for the bench to stand beside.
//!
//! One program started and ended, new namespaces but for users and pids, a union mount on a tmpfs,
//! bridge and veth into the new network: the dear parts of a container, asked for one after the
//! other by one thread and its helper, with no limits, rules, records or messages.

use crate::netlink::Route;
use crate::netlink::route::message::{Bridge, Veth};
use crate::sys::at::{self, Open, Resolve};
use crate::sys::mount::{self, Attr};
use crate::sys::ns::{self, Spaces};
use std::error::Error;
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

type Cause = Box<dyn Error + Send + Sync>;

const BRIDGE: &str = "floor-bridge";
const VETH: &str = "floor-veth";
/// For documentation, RFC 5737: no box has it in earnest.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// Ethernet's.
const MTU: u16 = 1500;

/// What one round has taken, part by part.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Floor {
    /// A static program, from fork to the end of the wait.
    pub program: Duration,
    /// Namespaces and mounts.
    pub inside: Duration,
    /// Links.
    pub links: Duration,
}

/// Measures one round. `program` answers `--version`; `lower` is a layer; `scratch` is an empty
/// directory, and is so afterwards.
pub(super) fn measure(program: &Path, lower: &Path, scratch: &Path) -> Result<Floor, Cause> {
    let mut floor = Floor::default();
    let begun = Instant::now();
    let mut version = Command::new(program);
    version.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    floor.program = begun.elapsed();

    let mut route = Route::open()?;
    let (keep, over) = mpsc::channel::<()>();
    let links = thread::scope(|scope| -> Result<_, Cause> {
        // The thread is the container: with it go its namespaces.
        let (told, made) = mpsc::channel();
        scope.spawn(move || {
            let inside = inside(lower, scratch).map_err(|err| err.to_string());
            let _ = told.send(inside);
            // It ends when the sender is dropped.
            let _ = over.recv();
        });
        let done = made.recv()?.map_err(Cause::from).and_then(|(took, netns)| {
            floor.inside = took;
            let begun = Instant::now();
            links(&mut route, &netns).map(|()| begun.elapsed())
        });
        drop(keep);
        done
    });
    for link in [BRIDGE, VETH] {
        match route.delete_link(link) {
            Err(err) if !err.missing() => return Err(err.into()),
            _ => {}
        }
    }
    floor.links = links?;
    Ok(floor)
}

/// Moves the calling thread into namespaces and mounts of its own.
fn inside(lower: &Path, scratch: &Path) -> Result<(Duration, File), Cause> {
    let begun = Instant::now();
    let kinds = [
        Spaces::CLONE_NEWNS,
        Spaces::CLONE_NEWNET,
        Spaces::CLONE_NEWUTS,
        Spaces::CLONE_NEWIPC,
        Spaces::CLONE_NEWCGROUP,
    ];
    ns::unshare(kinds.into_iter().collect())?;
    mount::make_all_private()?;
    let tmpfs = mount::new("tmpfs", &[("mode", "0711"), ("size", "1m")], Attr::NO_DEV)?;
    let flags = Open::O_PATH | Open::O_DIRECTORY;
    mount::attach(&tmpfs, at::open(at::HERE, scratch, flags, 0, Resolve::empty())?)?;
    for name in ["lower", "upper", "work", "root"] {
        at::make_dir(&tmpfs, name, 0o755)?;
    }
    let layer = mount::copy(at::HERE, lower, false)?;
    mount::restrict(&layer, Attr::READ_ONLY, None, false)?;
    mount::attach(&layer, at::open(&tmpfs, "lower", flags, 0, Resolve::empty())?)?;
    // The working directory is this thread's own since it left the others' mounts.
    at::change_dir(&tmpfs)?;
    mount::overlay("root", "lowerdir=lower,upperdir=upper,workdir=work", Attr::NO_DEV)?;
    let took = begun.elapsed();
    Ok((took, File::open("/proc/thread-self/ns/net")?))
}

/// Makes the links of one container, up on this side.
fn links(route: &mut Route, netns: &File) -> Result<(), Cause> {
    let mac = [0x02, 0, 0, 0, 0, 1];
    route.add_bridge(&Bridge { name: BRIDGE, mtu: MTU, mac, group: 0 })?;
    let bridge = route.link(BRIDGE)?.ok_or("the new bridge is gone")?.index;
    route.add_address(bridge, ADDRESS, 30)?;
    route.set_up(bridge)?;
    let (netns, mtu) = (netns.as_fd(), MTU);
    route.add_veth(&Veth { outer: VETH, inner: "floor-inside", mtu, bridge, netns })?;
    let veth = route.link(VETH)?.ok_or("the new veth is gone")?.index;
    Ok(route.set_up(veth)?)
}
