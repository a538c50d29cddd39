//! `witgate new adapter` and `witgate new policy`: a project to begin with, in the language of choice.
//!
//! The files are those of `templates/`, which `spin new` takes as they are. Of Spin's placeholders these are known:
//! `{{project-name | kebab_case}}`, `{{project-name | snake_case}}`, `{{project-description}}` and `{{sdk}}`; `.tmpl` at
//! the end of a file's name is left out.

use std::path::{Path, PathBuf};

include!(concat!(env!("OUT_DIR"), "/templates.rs"));

/// What a project is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// One more backend.
    Adapter,
    /// A look at requests and answers.
    Policy,
}

impl Kind {
    /// As in the names of templates.
    fn name(self) -> &'static str {
        match self {
            Kind::Adapter => "adapter",
            Kind::Policy => "policy",
        }
    }
}

/// A project to write.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Project {
    /// What it is for.
    pub kind: Kind,
    /// Letters a-z, digits and hyphens, beginning with a letter, at most 64.
    pub name: String,
    /// `rust`, and for an adapter `python` or `js`.
    pub language: String,
    /// One sentence.
    pub description: String,
    /// Where the SDK for Rust is; without it, in the checkout that this program was built from, if it is still there, else
    /// in the registry.
    pub sdk: Option<PathBuf>,
}

impl Project {
    /// An adapter of this name in this language.
    pub fn new(name: impl Into<String>, language: impl Into<String>) -> Self {
        let description = "An adapter for witgate".to_owned();
        Project { kind: Kind::Adapter, name: name.into(), language: language.into(), description, sdk: None }
    }

    /// A policy of this name, in Rust.
    pub fn policy(name: impl Into<String>) -> Self {
        let description = "A policy for witgate".to_owned();
        Project { kind: Kind::Policy, description, ..Project::new(name, "rust") }
    }

    /// The files of the project: their paths, and what they hold.
    ///
    /// # Errors
    /// A name or a language that cannot be, with what can.
    pub fn files(&self) -> Result<Vec<(String, String)>, NewError> {
        let named = self.name.len() <= 64
            && self.name.starts_with(|c: char| c.is_ascii_lowercase())
            && self.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !named {
            return Err(NewError::Name(self.name.clone()));
        }
        let prefix = format!("witgate-{}-{}/content/", self.kind.name(), self.language);
        let templates = TEMPLATES.iter().filter_map(|(path, text)| Some((path.strip_prefix(&prefix)?, text)));
        let files: Vec<_> = templates
            .map(|(path, text)| {
                let path = path.strip_suffix(".tmpl").unwrap_or(path);
                (path.to_owned(), self.fill(text))
            })
            .collect();
        if files.is_empty() {
            Err(NewError::Language(
                if self.kind == Kind::Policy { "a policy" } else { "an adapter" },
                self.language.clone(),
            ))
        } else {
            Ok(files)
        }
    }

    fn fill(&self, text: &str) -> String {
        let description: String =
            self.description.chars().filter(|c| !c.is_control() && !"\"\\".contains(*c)).collect();
        text.replace("{{project-name | kebab_case}}", &self.name)
            .replace("{{project-name | snake_case}}", &self.name.replace('-', "_"))
            .replace("{{project-description}}", &description)
            .replace("{{sdk}}", &self.sdk())
    }

    /// Where the SDK is, as Cargo.toml has it.
    fn sdk(&self) -> String {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk");
        let path = self.sdk.clone().or_else(|| checkout.join("Cargo.toml").is_file().then_some(checkout));
        match path.map(|path| path.canonicalize().unwrap_or(path)) {
            Some(path) => format!("path = {:?}", path.display().to_string()),
            None => "version = \"0.1\"".to_owned(),
        }
    }

    /// Writes the project into a folder that does not exist, or is empty.
    ///
    /// # Errors
    /// As [`files`](Self::files), and where the folder is not empty or cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), NewError> {
        let files = self.files()?;
        let cannot = |error: std::io::Error| NewError::Write { folder: folder.to_owned(), error };
        std::fs::create_dir_all(folder).map_err(cannot)?;
        if std::fs::read_dir(folder).map_err(cannot)?.next().is_some() {
            return Err(NewError::Taken(folder.to_owned()));
        }
        for (path, text) in files {
            let file = folder.join(&path);
            if let Some(parent) = file.parent() {
                std::fs::create_dir_all(parent).map_err(cannot)?;
            }
            std::fs::write(&file, &text).map_err(cannot)?;
            #[cfg(unix)]
            if text.starts_with("#!") {
                use std::os::unix::fs::PermissionsExt;
                std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).map_err(cannot)?;
            }
        }
        Ok(())
    }
}

/// Why a project was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NewError {
    /// The name.
    #[error("the name {0:?} is not possible: letters a-z, digits and hyphens, beginning with a letter, at most 64")]
    Name(String),
    /// The language.
    #[error(
        "there is no template of {0} for the language {1:?}; there are adapters in rust, python and js, and policies in rust"
    )]
    Language(&'static str, String),
    /// The folder holds something.
    #[error("the folder {} is not empty; choose another one with --dir", .0.display())]
    Taken(PathBuf),
    /// The folder cannot be written.
    #[error("cannot write into {}: {error}", folder.display())]
    Write {
        /// The folder.
        folder: PathBuf,
        /// Why.
        error: std::io::Error,
    },
}
