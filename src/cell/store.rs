//! The records on disk: one redb file, one transaction per change, read once at the start.

use super::clock::ClockRecord;
use super::diff::Key;
use super::drain::DrainRecord;
use super::record::AppRecord;
use crate::model::lrp::{ActualLrp, Side};
use crate::model::task::TaskRecord;
use crate::unit::{AppName, Digest};
use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition, TableHandle};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Memory that redb may keep: the records are all in our own memory anyway.
const CACHE_BYTES: usize = 1 << 20;

/// Format of the records that this program writes.
const FORMAT: u64 = 1;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const APPS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("apps");
const ACTUAL: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("actual_lrps");
/// What is kept of the cell itself, by name. Not in files of the first daemons.
const CELL: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("cell");
/// The wish to drain it.
const DRAIN: &str = "drain";
/// What the clocks showed when the times in the records were moved last.
const CLOCK: &str = "clock";
const TASKS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("tasks");

/// The open file.
pub struct RecordStore {
    path: PathBuf,
    database: Database,
}

/// What the records know of the daemon that has just begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Begun {
    /// Counts daemons of these records, from 1.
    pub epoch: u64,
    /// The box has been started anew since the last one.
    pub rebooted: bool,
}

/// A kernel's name for a run of the box, which is a UUID, as a number: its first 16 digits.
fn boot_number(boot: &str) -> u64 {
    let digits: String = boot.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    u64::from_str_radix(&digits, 16).unwrap_or(0)
}

/// Everything that is recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// By name.
    pub apps: BTreeMap<AppName, AppRecord>,
    /// By name, those that cannot be read.
    pub set_aside: BTreeMap<String, Unread>,
    /// By process and index.
    pub actual: BTreeMap<Key, ActualLrp>,
    /// The cell is drained.
    pub drain: Option<DrainRecord>,
    /// What the clocks showed; `None`: no daemon has noted it.
    pub clock: Option<ClockRecord>,
    /// By guid.
    pub tasks: BTreeMap<String, TaskRecord>,
}

impl Records {
    /// What of it has changed.
    pub fn since(&self, before: &Records) -> Records {
        fn new<K: Ord + Clone, V: PartialEq + Clone>(
            now: &BTreeMap<K, V>,
            before: &BTreeMap<K, V>,
        ) -> BTreeMap<K, V> {
            let new = now.iter().filter(|(key, it)| before.get(*key) != Some(*it));
            new.map(|(key, it)| (key.clone(), it.clone())).collect()
        }
        Records {
            apps: new(&self.apps, &before.apps),
            actual: new(&self.actual, &before.actual),
            tasks: new(&self.tasks, &before.tasks),
            drain: self.drain.clone().filter(|it| before.drain.as_ref() != Some(it)),
            clock: self.clock.clone().filter(|it| before.clock.as_ref() != Some(it)),
            set_aside: BTreeMap::new(),
        }
    }
}

/// An app's record that cannot be read. It stays on the disk, until its app is declared anew: a program
/// that knows how may read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// Why.
    pub why: String,
    /// All digests in it: of layers that it may need.
    pub digests: BTreeSet<Digest>,
}

impl Unread {
    fn new(record: &[u8], why: String) -> Unread {
        let words = record.split(|byte| !byte.is_ascii_hexdigit());
        let texts = words.filter_map(|word| std::str::from_utf8(word).ok());
        let digests = texts.filter(|text| text.len() == 64);
        let digests = digests.filter_map(|text| format!("sha256:{text}").parse().ok()).collect();
        Unread { why, digests }
    }
}

/// The records could not be read or written.
#[derive(Debug)]
pub enum StoreError {
    /// A newer program wrote them.
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: u64,
    },
    /// The database refused.
    Database {
        /// The file.
        path: PathBuf,
        /// Why.
        source: redb::Error,
    },
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Newer { path, format } => write!(
                f,
                "records {} have format {format}, this program knows {FORMAT}; upgrade terrarium",
                path.display()
            ),
            StoreError::Database { path, .. } => {
                write!(f, "records {} cannot be read or written", path.display())
            }
        }
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            StoreError::Newer { .. } => None,
            StoreError::Database { source, .. } => Some(source),
        }
    }
}

impl RecordStore {
    /// Opens the file, making it when missing. A file that was not closed is repaired by redb.
    pub fn open(path: &Path) -> Result<RecordStore, StoreError> {
        let fail = |source: redb::Error| StoreError::Database { path: path.to_owned(), source };
        // Environments may hold secrets; redb itself would let everybody read them.
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        options.open(path).map_err(|err| fail(redb::Error::Io(err)))?;
        let mut builder = Builder::new();
        let database = builder.set_cache_size(CACHE_BYTES).create(path);
        let database = database.map_err(|err| fail(err.into()))?;
        let store = RecordStore { path: path.to_owned(), database };
        let format = store.check(store.format())?;
        match format {
            Some(format) if format > FORMAT => {
                Err(StoreError::Newer { path: path.to_owned(), format })
            }
            Some(_) => Ok(store),
            None => {
                store.check(store.make_tables())?;
                Ok(store)
            }
        }
    }

    /// Reads everything. A record that cannot be read keeps no daemon from beginning: an app's is set
    /// aside; an instance's goes, as its container then does and another one comes; a Task's goes, as in
    /// the BBS, for nobody can begin it or be told of it; and so does what is kept of the cell itself.
    pub fn load(&self) -> Result<Records, StoreError> {
        let mut records = Records { tasks: self.read_table(TASKS)?, ..Records::default() };
        for (name, record) in self.read_raw(APPS)? {
            let read = serde_json::from_slice::<AppRecord>(&record).map_err(|err| place(&err));
            let named = name.parse::<AppName>().map_err(|err| err.to_string());
            match named.and_then(|name| Ok((name, read?))) {
                Ok((name, app)) => drop(records.apps.insert(name, app)),
                Err(why) => {
                    crate::error!("record.set_aside", app = name, err = why);
                    records.set_aside.insert(name, Unread::new(&record, why));
                }
            }
        }
        for record in self.read_table::<ActualLrp>(ACTUAL)?.into_values() {
            records.actual.insert((record.guid.clone(), record.index, record.side), record);
        }
        (records.drain, records.clock) = (self.read_own(DRAIN)?, self.read_own(CLOCK)?);
        Ok(records)
    }

    /// Something that is kept of the cell itself; one that cannot be read goes. What else is there is a
    /// later program's.
    fn read_own<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StoreError> {
        let found = self.read_raw(CELL)?.into_iter().find(|it| it.0 == name);
        let Some((_, record)) = found else { return Ok(None) };
        match serde_json::from_slice(&record) {
            Ok(record) => Ok(Some(record)),
            Err(err) => {
                let err = place(&err);
                crate::warn!("record.unreadable", what = "cell", name = name, err = err);
                self.check(self.put(CELL, name, None))?;
                Ok(None)
            }
        }
    }

    /// Writes all that has times, which were moved along with the clock, and what the clocks show now: in
    /// one transaction, as times before and after a jump cannot be told apart.
    pub fn put_moved(&self, records: &Records) -> Result<(), StoreError> {
        self.check(self.put_all(records))
    }

    fn put_all(&self, records: &Records) -> Result<(), redb::Error> {
        let apps = records.apps.iter().map(|(name, it)| (name.to_string(), to_json(it)));
        let actual = records.actual.iter().map(|(key, it)| (actual_name(key), to_json(it)));
        let tasks = records.tasks.iter().map(|(guid, it)| (guid.clone(), to_json(it)));
        let drain = records.drain.iter().map(|it| (DRAIN.to_owned(), to_json(it)));
        let clock = records.clock.iter().map(|it| (CLOCK.to_owned(), to_json(it)));
        let write = self.database.begin_write()?;
        for (table, rows) in [
            (APPS, apps.collect::<Vec<_>>()),
            (ACTUAL, actual.collect()),
            (TASKS, tasks.collect()),
            (CELL, drain.chain(clock).collect()),
        ] {
            let mut table = write.open_table(table)?;
            for (name, record) in rows {
                table.insert(name.as_str(), record.as_slice())?;
            }
        }
        Ok(write.commit()?)
    }

    /// Writes or, with `None`, removes the wish to drain the cell.
    pub fn put_drain(&self, record: Option<&DrainRecord>) -> Result<(), StoreError> {
        self.check(self.put(CELL, DRAIN, record.map(to_json)))
    }

    /// Writes or, with `None`, removes a Task.
    pub fn put_task(&self, guid: &str, record: Option<&TaskRecord>) -> Result<(), StoreError> {
        self.check(self.put(TASKS, guid, record.map(to_json)))
    }

    /// Notes that a daemon has begun. `boot`: what the kernel calls this run of the box, which is noted
    /// by [`RecordStore::settle`]: a daemon that dies before that has told nobody what the reboot ended.
    pub fn begin(&self, boot: &str) -> Result<Begun, StoreError> {
        self.check(self.note_begin(boot_number(boot)))
    }

    /// Notes that what ended with an earlier run of the box is on record.
    pub fn settle(&self, boot: &str) -> Result<(), StoreError> {
        self.check(self.note_boot(boot_number(boot)))
    }

    fn note_begin(&self, boot: u64) -> Result<Begun, redb::Error> {
        let write = self.database.begin_write()?;
        let begun = {
            let mut meta = write.open_table(META)?;
            let read = |old: Option<redb::AccessGuard<'_, u64>>| old.map(|old| old.value());
            let epoch = read(meta.get("epoch")?).unwrap_or(0) + 1;
            let before = read(meta.get("boot")?);
            meta.insert("epoch", epoch)?;
            Begun { epoch, rebooted: before.is_some_and(|before| before != boot) }
        };
        write.commit()?;
        Ok(begun)
    }

    /// Nothing is written when nothing changes.
    fn note_boot(&self, boot: u64) -> Result<(), redb::Error> {
        let write = self.database.begin_write()?;
        {
            let mut meta = write.open_table(META)?;
            if meta.get("boot")?.is_some_and(|known| known.value() == boot) {
                return Ok(());
            }
            meta.insert("boot", boot)?;
        }
        Ok(write.commit()?)
    }

    /// Writes or, with `None`, removes an app.
    pub fn put_app(&self, name: &AppName, record: Option<&AppRecord>) -> Result<(), StoreError> {
        self.check(self.put(APPS, name.as_str(), record.map(to_json)))
    }

    /// Writes or, with `None`, removes an instance.
    pub fn put_actual(&self, key: &Key, record: Option<&ActualLrp>) -> Result<(), StoreError> {
        self.check(self.put(ACTUAL, &actual_name(key), record.map(to_json)))
    }

    fn format(&self) -> Result<Option<u64>, redb::Error> {
        let read = self.database.begin_read()?;
        match read.open_table(META) {
            Ok(table) => Ok(table.get("format")?.map(|value| value.value())),
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
            Err(err) => Err(err.into()),
        }
    }

    fn make_tables(&self) -> Result<(), redb::Error> {
        let write = self.database.begin_write()?;
        write.open_table(META)?.insert("format", FORMAT)?;
        write.open_table(APPS)?;
        write.open_table(ACTUAL)?;
        write.open_table(TASKS)?;
        Ok(write.commit()?)
    }

    fn put(
        &self,
        table: TableDefinition<'_, &str, &[u8]>,
        key: &str,
        value: Option<Vec<u8>>,
    ) -> Result<(), redb::Error> {
        let write = self.database.begin_write()?;
        {
            let mut table = write.open_table(table)?;
            match &value {
                Some(value) => {
                    // Nothing is written when nothing changes.
                    if table.get(key)?.is_some_and(|old| old.value() == value.as_slice()) {
                        return Ok(());
                    }
                    table.insert(key, value.as_slice())?;
                }
                None if table.remove(key)?.is_none() => return Ok(()),
                None => {}
            }
        }
        Ok(write.commit()?)
    }

    /// The records of a table. Those that cannot be read go.
    fn read_table<T: DeserializeOwned>(
        &self,
        table: TableDefinition<'_, &str, &[u8]>,
    ) -> Result<BTreeMap<String, T>, StoreError> {
        let mut records = BTreeMap::new();
        for (key, value) in self.read_raw(table)? {
            match serde_json::from_slice(&value) {
                Ok(record) => drop(records.insert(key, record)),
                Err(err) => {
                    crate::warn!(
                        "record.unreadable",
                        what = table.name(),
                        name = key,
                        err = place(&err)
                    );
                    self.check(self.put(table, &key, None))?;
                }
            }
        }
        Ok(records)
    }

    /// A table as it is; one that an older program has not made is empty.
    fn read_raw(
        &self,
        table: TableDefinition<'_, &str, &[u8]>,
    ) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let mut rows = Vec::new();
        let read = self.check(self.database.begin_read().map_err(redb::Error::from))?;
        let table = match read.open_table(table) {
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(rows),
            table => self.check(table.map_err(redb::Error::from))?,
        };
        for row in self.check(table.iter().map_err(redb::Error::from))? {
            let (key, value) = self.check(row.map_err(redb::Error::from))?;
            rows.push((key.value().to_owned(), value.value().to_owned()));
        }
        Ok(rows)
    }

    fn check<T>(&self, result: Result<T, redb::Error>) -> Result<T, StoreError> {
        result.map_err(|source| StoreError::Database { path: self.path.clone(), source })
    }
}

/// What an instance is called on the disk.
fn actual_name(key: &Key) -> String {
    let side = if key.2 == Side::Right { "/right" } else { "" };
    format!("{}:{}/{}{side}", key.0.app, key.0.process, key.1)
}

/// What is wrong with a record and where: its own words may be secret.
fn place(err: &serde_json::Error) -> String {
    let what = match err.is_data() {
        true => "it is not what this program writes",
        false => "it is no JSON",
    };
    format!("{what}, line {} column {}", err.line(), err.column())
}

fn to_json<T: serde::Serialize>(record: &T) -> Vec<u8> {
    serde_json::to_vec(record).expect("plain data with text keys always becomes JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::lrp::{LrpState, ProcessGuid};

    fn lrp() -> ActualLrp {
        ActualLrp {
            guid: ProcessGuid { app: "web".parse().expect("name"), process: "web".into() },
            index: 0,
            side: Side::Left,
            version: "1".into(),
            state: LrpState::Crashed { succeeded: false },
            crash_count: 2,
            crash_reason: Some("x".into()),
            death: None,
            placement_error: None,
            routable: None,
            ran: false,
            was_ready: false,
            tag: Default::default(),
            since_ms: 5,
        }
    }

    #[test]
    fn daemons_are_counted_and_a_new_start_of_the_box_is_told() {
        let path = std::env::temp_dir().join(format!("begun-{}.redb", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let boots =
            ["4c2b6f10-3a5e-4a77-9b0e-000000000001", "4c2b6f10-3a5e-4a78-9b0e-000000000001"];
        let begun = |boot, settles: bool| {
            let store = RecordStore::open(&path).expect("open");
            let Begun { epoch, rebooted } = store.begin(boot).expect("noted");
            if settles {
                store.settle(boot).expect("noted");
            }
            (epoch, rebooted)
        };
        assert_eq!(begun(boots[0], true), (1, false), "nobody knows what was before");
        assert_eq!(begun(boots[0], true), (2, false));
        assert_eq!(begun(boots[1], false), (3, true));
        assert_eq!(begun(boots[1], true), (4, true), "the one before it has told nobody");
        assert_eq!(begun(boots[1], true), (5, false));
        std::fs::remove_file(&path).expect("clean up");
    }

    #[test]
    fn records_survive_and_a_removed_one_stays_away() {
        let path = std::env::temp_dir().join(format!("records-{}.redb", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let key = (lrp().guid, 0, Side::Left);
        // The one beside it, while a new version takes over.
        let beside = (lrp().guid, 0, Side::Right);
        let other = ActualLrp { side: Side::Right, version: "2".into(), ..lrp() };
        {
            let store = RecordStore::open(&path).expect("make");
            store.put_actual(&key, Some(&lrp())).expect("put");
            store.put_actual(&beside, Some(&other)).expect("put");
        }
        {
            let store = RecordStore::open(&path).expect("open");
            let records = store.load().expect("load");
            assert_eq!(records.actual, [(key.clone(), lrp()), (beside.clone(), other)].into());
            store.put_actual(&beside, None).expect("remove");
            store.put_actual(&key, None).expect("remove");
            store.put_actual(&key, None).expect("remove again");
        }
        let store = RecordStore::open(&path).expect("open");
        assert_eq!(store.load().expect("load"), Records::default());
        std::fs::remove_file(&path).expect("clean");
    }

    #[test]
    fn a_record_that_cannot_be_read_keeps_nobody_from_beginning() {
        let path = std::env::temp_dir().join(format!("torn-{}.redb", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let store = RecordStore::open(&path).expect("make");
        let layer = Digest::of(b"layer");
        let torn = format!("{{\"release\":{{\"droplet\":\"{layer}\"}},\"scale\":").into_bytes();
        let key = (lrp().guid, 0, Side::Left);
        store.put_actual(&key, Some(&lrp())).expect("put");
        for (table, name) in [
            (APPS, "web"),
            (ACTUAL, "web:web/1"),
            (TASKS, "once"),
            (CELL, "drain"),
            (CELL, "later"),
        ] {
            store.put(table, name, Some(torn.clone())).expect("put");
        }
        let set_aside = |store: &RecordStore| {
            let records = store.load().expect("load");
            assert_eq!(records.actual, [(key.clone(), lrp())].into(), "the others are there");
            assert!(records.apps.is_empty() && records.tasks.is_empty() && records.drain.is_none());
            let all = records.set_aside.into_iter();
            all.map(|(name, unread)| (name, unread.digests)).collect::<Vec<_>>()
        };
        for _ in 0..2 {
            assert_eq!(set_aside(&store), [("web".to_owned(), [layer].into())]);
        }
        let rows = |table| store.read_raw(table).expect("read");
        assert_eq!(rows(APPS), [("web".to_owned(), torn.clone())], "nothing of it is lost");
        assert!(rows(TASKS).is_empty() && rows(ACTUAL).len() == 1);
        assert_eq!(rows(CELL), [("later".to_owned(), torn.clone())], "a later program's");
        let app = crate::cell::releases::tests::app("memory = \"32MiB\"");
        store.put_app(&"web".parse().expect("name"), Some(&app)).expect("declared anew");
        let records = store.load().expect("load");
        assert_eq!((records.apps.len(), records.set_aside.len()), (1, 0));
        std::fs::remove_file(&path).expect("clean");
    }

    #[test]
    fn a_drained_cell_is_still_drained_after_its_daemon() {
        let path = std::env::temp_dir().join(format!("drained-{}.redb", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let record = DrainRecord { since_ms: 7, timeout_ms: 600_000, boot: "b".into() };
        let open = || RecordStore::open(&path).expect("open");
        assert_eq!(open().load().expect("load").drain, None, "an older program's file");
        open().put_drain(Some(&record)).expect("put");
        assert_eq!(open().load().expect("load").drain, Some(record));
        open().put_drain(None).expect("remove");
        assert_eq!(open().load().expect("load").drain, None);
        std::fs::remove_file(&path).expect("clean");
    }

    #[test]
    fn records_that_are_moved_along_with_the_clock_are_so_for_the_next_daemon() {
        let path = std::env::temp_dir().join(format!("moved-{}.redb", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let open = || RecordStore::open(&path).expect("open");
        let key = (lrp().guid, 0, Side::Right);
        let task = crate::cell::task::due::tests::after(
            crate::cell::task::due::tests::task("once", 1, ""),
            &[],
        );
        let web = crate::cell::releases::tests::app("memory = \"32MiB\"");
        let records = Records {
            apps: [("web".parse().expect("name"), web)].into(),
            actual: [(key, ActualLrp { side: Side::Right, since_ms: 9, ..lrp() })].into(),
            tasks: [("once".to_owned(), task)].into(),
            drain: Some(DrainRecord { since_ms: 7, timeout_ms: 600_000, boot: "b".into() }),
            clock: Some(ClockRecord { boot: "b".into(), wall_ms: 2, steady_ms: 1 }),
            ..Records::default()
        };
        assert_eq!(open().load().expect("load").clock, None, "an older program's file");
        open().put_moved(&records).expect("put");
        assert_eq!(open().load().expect("load"), records);
        let later = Records { drain: None, actual: BTreeMap::new(), ..records.clone() };
        assert_eq!(records.since(&later).actual.len(), 1);
        assert_eq!(records.since(&records), Records::default());
        std::fs::remove_file(&path).expect("clean");
    }

    #[test]
    fn records_of_a_newer_program_are_refused() {
        let path = std::env::temp_dir().join(format!("newer-{}.redb", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let store = RecordStore::open(&path).expect("make");
        let write = store.database.begin_write().expect("write");
        write.open_table(META).expect("meta").insert("format", FORMAT + 1).expect("insert");
        write.commit().expect("commit");
        drop(store);
        let err = RecordStore::open(&path).err().expect("refused");
        std::fs::remove_file(&path).expect("clean");
        assert!(err.to_string().contains("upgrade terrarium"), "{err}");
    }
}
