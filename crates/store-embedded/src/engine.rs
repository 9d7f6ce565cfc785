//! The storage engine (redb) behind the few things the store asks of it. The only file that names it.
//!
//! Invariant: a batch is on disk whole, or not at all, when [`Engine::write`] returns.

use std::path::Path;

use kedge_store::{Entry, Key, Replayed, Revision};
use redb::{Database, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction};

use crate::error::EmbeddedError;
use crate::row;

const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const RELAXED: TableDefinition<'_, &str, (u64, u64)> = TableDefinition::new("relaxed");

const FORMAT: &str = "format";
const FLOOR: &str = "floor";
const CEILING: &str = "ceiling";
const OPENED_AT: &str = "opened-at";
const CLOSED_AT: &str = "closed-at";

/// The layout that this version reads and writes.
const FORMAT_VERSION: u64 = 1;

/// Rows are read once, at the start, and written at the end of the table: the engine needs little.
const CACHE_BYTES: usize = 4 << 20;

/// The engine's name of its file in the data directory.
pub(crate) const FILE: &str = "store.redb";

/// An open database.
pub(crate) struct Engine {
    database: Database,
}

/// What lies in the database besides the rows.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    /// History begins after this.
    pub(crate) floor: Revision,
    /// No revision above this was shown to anybody before it was on disk.
    pub(crate) ceiling: Revision,
    /// The revision at which the store was opened last.
    pub(crate) opened_at: Revision,
    /// The revision at which the store was closed properly; none while it is open.
    pub(crate) closed_at: Option<Revision>,
    /// Parts of the key space with relaxed commits, and the revisions between which some may be lost.
    pub(crate) relaxed: Vec<(String, Revision, Revision)>,
}

/// What is written at once.
#[derive(Debug, Default)]
pub(crate) struct Batch<'a> {
    /// New rows.
    pub(crate) entries: Vec<&'a Entry>,
    /// Rows that nobody needs any more.
    pub(crate) superseded: Vec<(Revision, Key)>,
    /// The new floor.
    pub(crate) floor: Option<Revision>,
    /// The new ceiling.
    pub(crate) ceiling: Option<Revision>,
    /// Parts of the key space that have relaxed commits from now on.
    pub(crate) relaxed: Vec<&'a str>,
    /// The store is being closed at this revision.
    pub(crate) closed_at: Option<Revision>,
}

impl Engine {
    /// Opens the database in `directory`, or makes it.
    pub(crate) fn open(directory: &Path) -> Result<Self, EmbeddedError> {
        let database = redb::Builder::new().set_cache_size(CACHE_BYTES).create(directory.join(FILE));
        Ok(Self { database: database.map_err(|source| EmbeddedError::engine(directory, source))? })
    }

    /// Opens the database in a storage of the test's own.
    #[cfg(test)]
    pub(crate) fn open_in(storage: impl redb::StorageBackend) -> Result<Self, EmbeddedError> {
        let database = redb::Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(storage);
        Ok(Self { database: database.map_err(|source| EmbeddedError::engine(Path::new("test"), source))? })
    }

    /// Reads the header; `None` where the database is new.
    pub(crate) fn read_header(&self) -> Result<Option<Header>, EngineError> {
        let transaction = self.database.begin_read()?;
        let meta = match transaction.open_table(META) {
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            other => other?,
        };
        let number = |name| Ok::<_, EngineError>(meta.get(name)?.map(|value| value.value()));
        match number(FORMAT)? {
            Some(FORMAT_VERSION) => {}
            other => return Err(EngineError::Format(other.unwrap_or(0))),
        }
        let revision = |name| Ok::<_, EngineError>(Revision(number(name)?.unwrap_or(0)));
        let mut relaxed = Vec::new();
        for entry in transaction.open_table(RELAXED)?.iter()? {
            let (prefix, gap) = entry?;
            let (from, to) = gap.value();
            relaxed.push((prefix.value().to_owned(), Revision(from), Revision(to)));
        }
        let closed_at = number(CLOSED_AT)?.map(Revision);
        let (floor, ceiling, opened_at) = (revision(FLOOR)?, revision(CEILING)?, revision(OPENED_AT)?);
        Ok(Some(Header { floor, ceiling, opened_at, closed_at, relaxed }))
    }

    /// Replaces the header, and makes the tables where they are not there.
    pub(crate) fn write_header(&self, header: &Header) -> Result<(), EngineError> {
        let transaction = self.database.begin_write()?;
        transaction.open_table(ROWS)?;
        transaction.delete_table(RELAXED)?;
        {
            let mut relaxed = transaction.open_table(RELAXED)?;
            for (prefix, from, to) in &header.relaxed {
                relaxed.insert(prefix.as_str(), (from.0, to.0))?;
            }
            let mut meta = transaction.open_table(META)?;
            meta.insert(FORMAT, FORMAT_VERSION)?;
            meta.insert(FLOOR, header.floor.0)?;
            meta.insert(CEILING, header.ceiling.0)?;
            meta.insert(OPENED_AT, header.opened_at.0)?;
            match header.closed_at {
                Some(revision) => meta.insert(CLOSED_AT, revision.0)?,
                None => meta.remove(CLOSED_AT)?,
            };
        }
        Ok(transaction.commit()?)
    }

    /// Hands out every row, in the order of revisions.
    pub(crate) fn read_rows(&self, mut replay: impl FnMut(Replayed)) -> Result<(), EngineError> {
        let rows = self.database.begin_read()?.open_table(ROWS)?;
        for entry in rows.iter()? {
            let (name, row) = entry?;
            let replayed = row::decode(name.value(), row.value()).ok_or(EngineError::Row)?;
            replay(replayed);
        }
        Ok(())
    }

    /// Writes a batch and waits until it is on disk.
    pub(crate) fn write(&self, batch: &Batch<'_>) -> Result<(), EngineError> {
        let transaction = self.database.begin_write()?;
        write_rows(&mut transaction.open_table(ROWS)?, batch)?;
        write_meta(&transaction, batch)?;
        Ok(transaction.commit()?)
    }
}

fn write_rows(rows: &mut Table<'_, &[u8], &[u8]>, batch: &Batch<'_>) -> Result<(), EngineError> {
    let mut name = Vec::with_capacity(128);
    for (revision, key) in &batch.superseded {
        row::encode_name(*revision, key, &mut name);
        rows.remove(name.as_slice())?;
    }
    for entry in &batch.entries {
        row::encode_name(entry.change.revision, &entry.change.record.key, &mut name);
        row::encode(entry, rows.insert_reserve(name.as_slice(), row::encoded_len(entry))?.as_mut());
    }
    Ok(())
}

fn write_meta(transaction: &WriteTransaction, batch: &Batch<'_>) -> Result<(), EngineError> {
    if !batch.relaxed.is_empty() {
        let mut relaxed = transaction.open_table(RELAXED)?;
        for prefix in &batch.relaxed {
            relaxed.insert(*prefix, (0, 0))?;
        }
    }
    let numbers = [(FLOOR, batch.floor), (CEILING, batch.ceiling), (CLOSED_AT, batch.closed_at)];
    if numbers.iter().all(|(_, revision)| revision.is_none()) {
        return Ok(());
    }
    let mut meta = transaction.open_table(META)?;
    for (name, revision) in numbers {
        if let Some(revision) = revision {
            meta.insert(name, revision.0)?;
        }
    }
    Ok(())
}

/// Why the engine failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    /// The engine's own error.
    #[error(transparent)]
    Engine(Box<redb::Error>),
    /// A row that no version wrote.
    #[error("a row cannot be read; the file is damaged")]
    Row,
    /// A layout of another version.
    #[error("the data has format {0}, and this version reads format {FORMAT_VERSION}; use the version that wrote it")]
    Format(u64),
}

impl<E: Into<redb::Error>> From<E> for EngineError {
    fn from(error: E) -> Self {
        Self::Engine(Box::new(error.into()))
    }
}
