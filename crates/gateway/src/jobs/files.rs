//! Files that clients upload for their batches, and those that batches write: OpenAI's `/v1/files`.
//!
//! A file lies in the state store in pieces; its record is written last, so that a file that is there is whole.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use multer::{Constraints, Multipart, SizeLimit};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use witgate_model::Field;

use super::serve::{invalid, limit, listed, parameter, told};
use super::store::{self, PIECE, Store, millis};
use super::unavailable;
use crate::encoding;
use crate::failure::Failed;
use crate::gateway::Gateway;
use crate::http::{self, RequestBody, Whole};
use crate::path::Flight;
use crate::ports::Ports;
use crate::query;
use crate::record::Outcome;
use crate::state::StateError;

/// What a form may take beside its file.
const FORM: usize = 64 * 1024;
/// Longest name of a file.
const MAX_NAME: usize = 256;

/// What is asked about files.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum FileQuestion<'a> {
    Upload,
    List,
    Get(&'a str),
    Content(&'a str),
    Delete(&'a str),
}

/// A file. Times are in milliseconds since 1970.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct File {
    pub id: String,
    pub owner: String,
    pub filename: String,
    pub purpose: String,
    pub bytes: usize,
    pub created: u64,
    pub expires: u64,
}

impl File {
    fn shown(&self) -> Value {
        json!({
            "id": self.id, "object": "file", "bytes": self.bytes, "created_at": self.created / 1_000,
            "expires_at": self.expires / 1_000, "filename": self.filename, "purpose": self.purpose,
            "status": "processed",
        })
    }
}

fn file_key(id: &str) -> String {
    format!("file/{id}")
}

/// Where a file's content is, in pieces.
fn content(id: &str) -> String {
    format!("fileb/{id}")
}

/// Writes a file piece by piece.
pub(super) struct FileWriter {
    pub file: File,
    number: usize,
    piece: BytesMut,
}

impl FileWriter {
    pub fn new(file: File) -> Self {
        FileWriter { file, number: 0, piece: BytesMut::new() }
    }

    pub async fn write<P: Ports>(&mut self, store: Store<'_, P>, mut bytes: &[u8]) -> Result<(), StateError> {
        self.file.bytes += bytes.len();
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(PIECE - self.piece.len()));
            self.piece.extend_from_slice(now);
            bytes = later;
            if self.piece.len() == PIECE {
                self.flush(store).await?;
            }
        }
        Ok(())
    }

    async fn flush<P: Ports>(&mut self, store: Store<'_, P>) -> Result<(), StateError> {
        let piece = self.piece.split().freeze();
        // A little longer than the record that says that they are there.
        let expires = std::time::Duration::from_millis(self.file.expires + 1_000);
        store.put_piece(&content(&self.file.id), self.number, piece, expires).await?;
        self.number += 1;
        Ok(())
    }

    /// The file is whole.
    pub async fn finish<P: Ports>(mut self, store: Store<'_, P>) -> Result<File, StateError> {
        if !self.piece.is_empty() {
            self.flush(store).await?;
        }
        let File { id, owner, created, expires, .. } = &self.file;
        let expires = std::time::Duration::from_millis(*expires);
        store.enter(&store::newest("fileo", owner, *created, id), expires).await?;
        store.write(&file_key(id), &self.file, expires).await?;
        Ok(self.file)
    }
}

impl Gateway {
    /// Answers a question about files.
    pub(crate) async fn ask_files<P: Ports, B: RequestBody>(
        self: &Arc<Self>,
        mut flight: Flight<P>,
        question: FileQuestion<'_>,
        (headers, query, body): (&[Field], &str, B),
    ) -> Whole {
        let answer = async {
            let ports = Arc::clone(&flight.ports);
            let store = Store(ports.as_ref());
            let owner = self.owner(&flight);
            match question {
                FileQuestion::Upload => {
                    flight.place = Some(self.admit()?);
                    let file = self.upload(&flight, &owner, headers, body).await?;
                    Ok(told(&mut flight, 200, Vec::new(), &file.shown()))
                }
                FileQuestion::List => {
                    let page = files(store, &owner, &query::parameters(query)?).await?;
                    Ok(told(&mut flight, 200, Vec::new(), &page))
                }
                FileQuestion::Get(id) => {
                    let file = own_file(store, id, &owner).await?;
                    Ok(told(&mut flight, 200, Vec::new(), &file.shown()))
                }
                FileQuestion::Content(id) => {
                    flight.place = Some(self.admit()?);
                    let file = own_file(store, id, &owner).await?;
                    let Some(bytes) = read(store, &file).await.map_err(|error| unavailable(&error))? else {
                        return Err(missing(id));
                    };
                    flight.end(200, Outcome::Complete);
                    let headers = vec![("content-type".to_owned(), "application/octet-stream".to_owned())];
                    Ok(flight.respond(200, headers, bytes))
                }
                FileQuestion::Delete(id) => {
                    let file = own_file(store, id, &owner).await?;
                    let removed = async {
                        store.remove(&file_key(id)).await?;
                        store.remove(&store::newest("fileo", &owner, file.created, id)).await?;
                        store.remove_pieces(&content(id), file.bytes).await
                    };
                    removed.await.map_err(|error| unavailable(&error))?;
                    Ok(told(&mut flight, 200, Vec::new(), &json!({"id": id, "object": "file", "deleted": true})))
                }
            }
        };
        match answer.await {
            Ok(whole) => whole,
            Err(failed) => flight.refuse(self, "openai-chat", failed),
        }
    }

    /// Reads a form with a file and its purpose.
    async fn upload<P: Ports, B: RequestBody>(
        &self,
        flight: &Flight<P>,
        owner: &str,
        headers: &[Field],
        body: B,
    ) -> Result<File, Failed> {
        let most = self.config.jobs.max_file_bytes;
        let form = |what: String| {
            Failed::ours(400, "invalid_request_error", "invalid_form", format!("the form cannot be read: {what}"))
        };
        let content_type = http::header(headers, "content-type").unwrap_or_default();
        let boundary = multer::parse_boundary(content_type)
            .map_err(|error| form(format!("the content type must be multipart/form-data with a boundary ({error})")))?;
        let body = match body.read(most + FORM).await {
            Ok(body) => encoding::decode(http::header(headers, "content-encoding"), body, most + FORM)?,
            Err(crate::BodyError::TooLarge) => return Err(encoding::too_large(most)),
            Err(error) => {
                return Err(Failed::ours(408, "invalid_request_error", "body_incomplete", error.to_string()));
            }
        };
        let body = stream::once(std::future::ready(Ok::<Bytes, Infallible>(body)));
        let limits = SizeLimit::new().for_field("file", most as u64).for_field("purpose", 256);
        let limits = Constraints::new().size_limit(limits.per_field(most as u64));
        let mut parts = Multipart::with_constraints(body, boundary, limits);
        let (mut file, mut purpose) = (None, None);
        while let Some(part) = parts.next_field().await.map_err(|error| form(error.to_string()))? {
            match part.name() {
                Some("file") => {
                    let name: String = part.file_name().unwrap_or("file").chars().take(MAX_NAME).collect();
                    file = Some((name, part.bytes().await.map_err(|error| form(error.to_string()))?));
                }
                Some("purpose") => purpose = Some(part.text().await.map_err(|error| form(error.to_string()))?),
                // `expires_after[…]` and what may come.
                Some(other) => {
                    let name: String = other.chars().take(64).collect();
                    return Err(invalid(&name, "is not taken: there are `file` and `purpose`".to_owned()));
                }
                None => return Err(form("a part has no name".to_owned())),
            }
        }
        let Some((filename, bytes)) = file else { return Err(invalid("file", "is required".to_owned())) };
        if purpose.as_deref() != Some("batch") {
            return Err(invalid("purpose", "must be `batch`: files are for batches here".to_owned()));
        }
        let store = Store(flight.ports.as_ref());
        let id = format!("file-{}", http::id(flight.ports.random()));
        let now = store.now();
        let expires = millis(now + self.config.jobs.files_kept_for);
        let (owner, purpose) = (owner.to_owned(), "batch".to_owned());
        let file = File { id, owner, filename, purpose, bytes: 0, created: millis(now), expires };
        let mut writer = FileWriter::new(file);
        let written = async {
            writer.write(store, &bytes).await?;
            writer.finish(store).await
        };
        written.await.map_err(|error| unavailable(&error))
    }
}

fn missing(id: &str) -> Failed {
    let id: String = id.chars().take(64).collect();
    let message = format!("no file \"{id}\": it never was, has expired, or is another client's");
    Failed::ours(404, "not_found_error", "file_not_found", message)
}

/// The file of that id, for its owner.
pub(super) async fn own_file<P: Ports>(store: Store<'_, P>, id: &str, owner: &str) -> Result<File, Failed> {
    let plain = id.len() <= 64 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if !plain {
        return Err(missing(id));
    }
    let found = store.read::<File>(&file_key(id)).await.map_err(|error| unavailable(&error))?;
    found.map(|(file, _)| file).filter(|file| file.owner == owner).ok_or_else(|| missing(id))
}

/// The content of a file; `None` where a piece of it is missing.
pub(super) async fn read<P: Ports>(store: Store<'_, P>, file: &File) -> Result<Option<Bytes>, StateError> {
    store.pieces(&content(&file.id), file.bytes).await
}

/// A page of an owner's files, the newest first.
async fn files<P: Ports>(store: Store<'_, P>, owner: &str, query: &[Field]) -> Result<Value, Failed> {
    let limit = limit(query)?;
    let purpose = parameter(query, "purpose");
    let mut after = match parameter(query, "after") {
        Some(id) => Some(store::newest("fileo", owner, own_file(store, id, owner).await?.created, id)),
        None => None,
    };
    let prefix = format!("fileo/{owner}");
    let mut found: Vec<Value> = Vec::new();
    let read = async {
        while found.len() <= limit {
            let page = store.list(&format!("{prefix}/"), after.as_deref(), limit + 1 - found.len()).await?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            for (key, _) in &page {
                if let Some((_, id)) = store::of(&prefix, key)
                    && let Some((file, _)) = store.read::<File>(&file_key(id)).await?
                    && purpose.is_none_or(|purpose| file.purpose == purpose)
                {
                    found.push(file.shown());
                }
            }
        }
        Ok(())
    };
    read.await.map_err(|error: StateError| unavailable(&error))?;
    Ok(listed(found, limit))
}
