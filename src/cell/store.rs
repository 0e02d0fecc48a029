//! The records on disk: one redb file, one transaction per change, read once at the start.

use super::diff::Key;
use super::record::AppRecord;
use crate::model::lrp::ActualLrp;
use crate::unit::AppName;
use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
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

/// The open file.
pub struct RecordStore {
    path: PathBuf,
    database: Database,
}

/// Everything that is recorded.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// By name.
    pub apps: BTreeMap<AppName, AppRecord>,
    /// By process and index.
    pub actual: BTreeMap<Key, ActualLrp>,
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
    /// A record makes no sense.
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Table and key.
        record: String,
        /// Why.
        source: serde_json::Error,
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
            StoreError::Corrupt { path, record, .. } => {
                write!(f, "record {record} in {} cannot be read", path.display())
            }
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
            StoreError::Corrupt { source, .. } => Some(source),
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

    /// Reads everything.
    pub fn load(&self) -> Result<Records, StoreError> {
        let mut records = Records::default();
        for (name, record) in self.read_table::<AppRecord>(APPS, "apps")? {
            if let Ok(name) = name.parse() {
                records.apps.insert(name, record);
            }
        }
        for (_, record) in self.read_table::<ActualLrp>(ACTUAL, "actual_lrps")? {
            records.actual.insert((record.guid.clone(), record.index), record);
        }
        Ok(records)
    }

    /// Writes or, with `None`, removes an app.
    pub fn put_app(&self, name: &AppName, record: Option<&AppRecord>) -> Result<(), StoreError> {
        self.check(self.put(APPS, name.as_str(), record.map(to_json)))
    }

    /// Writes or, with `None`, removes an instance.
    pub fn put_actual(&self, key: &Key, record: Option<&ActualLrp>) -> Result<(), StoreError> {
        let name = format!("{}:{}/{}", key.0.app, key.0.process, key.1);
        self.check(self.put(ACTUAL, &name, record.map(to_json)))
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

    fn read_table<T: DeserializeOwned>(
        &self,
        table: TableDefinition<'_, &str, &[u8]>,
        name: &str,
    ) -> Result<Vec<(String, T)>, StoreError> {
        let mut rows = Vec::new();
        let read = self.check(self.database.begin_read().map_err(redb::Error::from))?;
        let table = self.check(read.open_table(table).map_err(redb::Error::from))?;
        for row in self.check(table.iter().map_err(redb::Error::from))? {
            let (key, value) = self.check(row.map_err(redb::Error::from))?;
            let record = serde_json::from_slice(value.value()).map_err(|source| {
                let record = format!("{name}/{}", key.value());
                StoreError::Corrupt { path: self.path.clone(), record, source }
            })?;
            rows.push((key.value().to_owned(), record));
        }
        Ok(rows)
    }

    fn check<T>(&self, result: Result<T, redb::Error>) -> Result<T, StoreError> {
        result.map_err(|source| StoreError::Database { path: self.path.clone(), source })
    }
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
            version: "1".into(),
            state: LrpState::Crashed { succeeded: false },
            crash_count: 2,
            crash_reason: Some("x".into()),
            placement_error: None,
            since_ms: 5,
        }
    }

    #[test]
    fn records_survive_and_a_removed_one_stays_away() {
        let path = std::env::temp_dir().join(format!("records-{}.redb", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let key = (lrp().guid, 0);
        {
            let store = RecordStore::open(&path).expect("make");
            store.put_actual(&key, Some(&lrp())).expect("put");
        }
        {
            let store = RecordStore::open(&path).expect("open");
            let records = store.load().expect("load");
            assert_eq!(records.actual, [(key.clone(), lrp())].into());
            store.put_actual(&key, None).expect("remove");
            store.put_actual(&key, None).expect("remove again");
        }
        let store = RecordStore::open(&path).expect("open");
        assert_eq!(store.load().expect("load"), Records::default());
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
