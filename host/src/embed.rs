//! What a program that embeds the host brings itself: [`Builder`]'s methods for it, and what it keeps of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use witgate_config::{Config, Limits, Native};
use witgate_gateway::Warning;

use crate::host::{BuildError, Builder, Host};
use crate::native::{AnyAdapter, AnyPolicy, NativeAdapter, NativePolicy};
use crate::own_client::{AnyClient, HttpClient};
use crate::own_state::{OwnState, StateStore};

/// What is done with what an operator should know.
pub(crate) type Watcher = Arc<dyn Fn(&Warning<'_>) + Send + Sync>;

/// Gives the values of variables by their names.
type Secrets = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// What the program brings itself.
pub(crate) struct Own {
    adapters: BTreeMap<String, Arc<dyn NativeAdapter>>,
    policies: BTreeMap<String, Arc<dyn NativePolicy>>,
    pub state: Option<OwnState>,
    pub client: Option<Arc<dyn AnyClient>>,
    pub warn: Watcher,
    secrets: Secrets,
}

impl Default for Own {
    fn default() -> Self {
        Own {
            adapters: BTreeMap::new(),
            policies: BTreeMap::new(),
            state: None,
            client: None,
            warn: Arc::new(crate::log::warning),
            secrets: Arc::new(|name| std::env::var(name).ok()),
        }
    }
}

impl Own {
    /// The adapter of this name; the error says what is wrong with it.
    pub fn adapter(&self, name: &str, limits: &Limits) -> Result<AnyAdapter, String> {
        let code = self.adapters.get(name).ok_or_else(|| format!("the program brings no adapter \"{name}\""))?;
        AnyAdapter::native(name, Arc::clone(code), limits.max_events_per_frame).map_err(|error| error.to_string())
    }

    /// The policy `of`, which the configuration calls `name`; the error says what is wrong with it.
    pub fn policy(&self, name: &str, of: &str, limits: &Limits) -> Result<AnyPolicy, String> {
        let code = self.policies.get(of).ok_or_else(|| format!("the program brings no policy \"{of}\""))?;
        AnyPolicy::native(name, Arc::clone(code), limits.max_events_per_frame).map_err(|error| error.to_string())
    }
}

/// Where a host's configuration comes from.
pub(crate) enum Configuration {
    Read(Box<Config>),
    Text(String),
    File(PathBuf),
    /// As a function of the program reads it, each time that it is read.
    Asked(Reader),
}

/// Reads a configuration; with the file that it stands in.
pub(crate) struct Reader {
    file: Option<PathBuf>,
    read: Box<dyn Fn() -> Result<Config, BuildError> + Send + Sync>,
}

impl Configuration {
    /// Reads it. `base` becomes the folder of a file, where none was chosen.
    pub fn read(&self, own: &Own, base: &mut PathBuf) -> Result<Config, BuildError> {
        let (text, file) = match self {
            Configuration::Read(config) => return Ok(config.as_ref().clone()),
            Configuration::Asked(reader) => return (reader.read)(),
            Configuration::Text(text) => (text.clone(), "configuration".to_owned()),
            Configuration::File(file) => match std::fs::read_to_string(file) {
                Ok(text) => {
                    if let (true, Some(folder)) = (base.as_os_str().is_empty(), file.parent()) {
                        *base = folder.to_owned();
                    }
                    (text, file.display().to_string())
                }
                Err(error) => return Err(BuildError::File { file: file.clone(), error }),
            },
        };
        let native = Native {
            adapters: own.adapters.keys().cloned().collect(),
            policies: own.policies.keys().cloned().collect(),
        };
        Config::from_toml_with(&text, &file, own.secrets.as_ref(), &native).map_err(BuildError::Config)
    }

    /// The file that it stands in.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Configuration::File(file) => Some(file),
            Configuration::Asked(reader) => reader.file.as_deref(),
            Configuration::Read(_) | Configuration::Text(_) => None,
        }
    }
}

impl Host {
    /// Begins a host for a configuration that is a text of the form of `witgate.toml`. It is read by
    /// [`build`](Builder::build), so that it can name what the program brings itself.
    ///
    /// ```
    /// let host = witgate_host::Host::from_toml("[providers.stub]\nadapter = \"stub\"").build()?;
    /// # Ok::<(), witgate_host::BuildError>(())
    /// ```
    pub fn from_toml(text: impl Into<String>) -> Builder {
        Host::begin(Configuration::Text(text.into()))
    }

    /// Begins a host for a configuration that a function reads: by [`build`](Builder::build), and each time that it is
    /// to be read anew ([`Host::reload`]). `file` is where it stands; a change there lets it be read anew too.
    pub fn from_fn(
        file: Option<PathBuf>,
        read: impl Fn() -> Result<Config, BuildError> + Send + Sync + 'static,
    ) -> Builder {
        Host::begin(Configuration::Asked(Reader { file, read: Box::new(read) }))
    }

    /// Begins a host for a configuration file. It is read by [`build`](Builder::build); paths in it are relative to its
    /// folder.
    ///
    /// ```no_run
    /// let host = witgate_host::Host::from_file("/etc/witgate/witgate.toml").build()?;
    /// # Ok::<(), witgate_host::BuildError>(())
    /// ```
    pub fn from_file(file: impl Into<PathBuf>) -> Builder {
        Host::begin(Configuration::File(file.into()))
    }
}

impl Builder {
    /// Gives the configuration an adapter of the program's own: a provider with `adapter = "NAME"` uses it. It comes
    /// before one of the same name that comes with witgate. Everything that is written with the SDK can be given.
    ///
    /// ```
    /// use witgate_sdk::{NoSettings, OpenAi, ResponseHead, Variation, Varied};
    /// use witgate_host::Host;
    ///
    /// /// OpenAI's API under another name.
    /// struct Acme;
    ///
    /// impl Variation for Acme {
    ///     type Base = OpenAi;
    ///     type Settings = NoSettings;
    ///     const ID: &str = "acme";
    ///     const VERSION: &str = "1.0.0";
    ///     const SUMMARY: &str = "Acme's models.";
    ///
    ///     fn answer(_: NoSettings, _: &ResponseHead) -> Self {
    ///         Acme
    ///     }
    /// }
    ///
    /// let host = Host::from_toml("[providers.acme]\nadapter = \"acme\"\nendpoint = \"http://localhost:8081\"")
    ///     .adapter("acme", Varied::<Acme>::default())
    ///     .build()?;
    /// # Ok::<(), witgate_host::BuildError>(())
    /// ```
    pub fn adapter(mut self, name: impl Into<String>, adapter: impl NativeAdapter) -> Self {
        self.setup.own.adapters.insert(name.into(), Arc::new(adapter));
        self
    }

    /// Gives the configuration a policy of the program's own: `server.policies`, or the `policies` of a model, say where it
    /// stands among the others. Without that it is not asked. A table `[policies.NAME]` is needed only for settings or
    /// another `on_failure`.
    ///
    /// ```
    /// use witgate_host::model::policy::{Context, Decision};
    /// use witgate_host::model::{Error, Request};
    /// use witgate_host::{Host, NativePolicy};
    ///
    /// struct NoTools;
    ///
    /// impl NativePolicy for NoTools {
    ///     fn on_request(&self, _: &str, _: &Context, request: &Request) -> Result<Decision, Error> {
    ///         match request.tools.is_empty() {
    ///             true => Ok(Decision::default()),
    ///             false => Err(Error::invalid("tools", "tools are not allowed here")),
    ///         }
    ///     }
    /// }
    ///
    /// let host = Host::from_toml("[server]\npolicies = [\"no-tools\"]\n[providers.stub]\nadapter = \"stub\"")
    ///     .policy("no-tools", NoTools)
    ///     .build()?;
    /// # Ok::<(), witgate_host::BuildError>(())
    /// ```
    pub fn policy(mut self, name: impl Into<String>, policy: impl NativePolicy) -> Self {
        self.setup.own.policies.insert(name.into(), Arc::new(policy));
        self
    }

    /// Where keys, meters, jobs and kept answers lie, whatever the configuration's `[state]` says. [`StateStore`] has an
    /// example.
    pub fn state(mut self, store: impl StateStore) -> Self {
        self.setup.own.state = Some(OwnState::new(store));
        self
    }

    /// What `${NAME}` in the configuration stands for, secrets above all: in the place of the environment. Asked while a
    /// configuration is read, for each name where it stands; `None` says that there is no such name. Without effect on a
    /// [`Config`] that was read before.
    ///
    /// ```
    /// use witgate_host::Host;
    ///
    /// let vault = |name: &str| (name == "OPENAI_KEY").then(|| "sk-1234".to_owned());
    /// let host = Host::from_toml("[providers.openai]\nadapter = \"openai\"\napi_key = \"${OPENAI_KEY}\"")
    ///     .secrets(vault)
    ///     .build()?;
    /// # Ok::<(), witgate_host::BuildError>(())
    /// ```
    pub fn secrets(mut self, secrets: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        self.setup.own.secrets = Arc::new(secrets);
        self
    }

    /// What is done with what an operator should know beside the records of requests: fallbacks, faults of components,
    /// alarms, budgets. Without it, `tracing` events of targets that begin with `witgate::`. It is called on the threads
    /// that serve: it should not block.
    ///
    /// ```
    /// use witgate_config::Config;
    /// use witgate_host::{Host, Warning};
    ///
    /// let host = Host::builder(Config::builtin())
    ///     .on_warning(|warning| match warning {
    ///         Warning::Fallback { from, to, .. } => eprintln!("{from} failed; {to} is asked"),
    ///         other => eprintln!("{other:?}"),
    ///     })
    ///     .build()?;
    /// # Ok::<(), witgate_host::BuildError>(())
    /// ```
    pub fn on_warning(mut self, warn: impl Fn(&Warning<'_>) + Send + Sync + 'static) -> Self {
        self.setup.own.warn = Arc::new(warn);
        self
    }

    /// What sends requests to the backends, in the place of witgate's own client. [`HttpClient`] has an example.
    pub fn http_client(mut self, client: impl HttpClient) -> Self {
        self.setup.own.client = Some(Arc::new(client) as Arc<dyn AnyClient>);
        self
    }
}
