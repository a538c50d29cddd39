//! The shells that make components of an [`Adapter`](crate::Adapter) and of a [`Policy`](crate::Policy).

/// Exports an [`Adapter`](crate::Adapter) as a component of the world `witgate:adapter/adapter`. For crates two folders
/// below the root, as `components/*`, with `wit-bindgen` among their dependencies.
#[macro_export]
macro_rules! export_adapter {
    ($adapter:ty) => {
        mod bindings {
            wit_bindgen::generate!({
                path: "../../wit/adapter",
                world: "adapter",
                with: { "witgate:adapter/types@0.1.0": witgate_model::types },
            });
        }

        $crate::adapter_shell!($adapter, bindings);
    };
}

/// What a component of an [`Adapter`](crate::Adapter) consists of, over the bindings in the module `$bindings`.
#[doc(hidden)]
#[macro_export]
macro_rules! adapter_shell {
    ($adapter:ty, $bindings:ident) => {
        struct Shell;

        impl $bindings::exports::witgate::adapter::chat::Guest for Shell {
            type Decoder = ShellDecoder;

            fn describe() -> $crate::Description {
                <$adapter as $crate::Adapter>::describe()
            }

            fn probe(settings: String) -> Result<Option<$crate::HttpRequest>, $crate::Error> {
                <$adapter as $crate::Adapter>::probe(&settings)
            }

            fn encode(settings: String, request: $crate::Request) -> Result<$crate::HttpRequest, $crate::Error> {
                <$adapter as $crate::Adapter>::encode(&settings, request)
            }
        }

        struct ShellDecoder(std::cell::RefCell<<$adapter as $crate::Adapter>::Decoder>);

        impl $bindings::exports::witgate::adapter::chat::GuestDecoder for ShellDecoder {
            fn new(settings: String, context: Option<String>, head: $crate::ResponseHead) -> Self {
                ShellDecoder(std::cell::RefCell::new(<$adapter as $crate::Adapter>::decoder(&settings, context, head)))
            }

            fn feed(&self, frames: Vec<$crate::Frame>) -> Vec<$crate::Event> {
                $crate::Decoder::feed(&mut *self.0.borrow_mut(), frames)
            }

            fn finish(&self) -> Vec<$crate::Event> {
                $crate::Decoder::finish(&mut *self.0.borrow_mut())
            }
        }

        $bindings::export!(Shell with_types_in $bindings);
    };
}

/// Exports a [`Policy`](crate::Policy) as a component of the world `witgate:policy/policy`. For crates two folders below
/// the root, as `components/*`, with `wit-bindgen` among their dependencies.
#[macro_export]
macro_rules! export_policy {
    ($policy:ty) => {
        mod bindings {
            wit_bindgen::generate!({
                path: ["../../wit/adapter", "../../wit/policy"],
                world: "witgate:policy/policy",
                with: {
                    "witgate:adapter/types@0.1.0": witgate_model::types,
                    "witgate:policy/types@0.1.0": witgate_model::policy,
                },
            });
        }

        $crate::policy_shell!($policy, bindings);
    };
}

/// What a component of a [`Policy`](crate::Policy) consists of, over the bindings in the module `$bindings`.
#[doc(hidden)]
#[macro_export]
macro_rules! policy_shell {
    ($policy:ty, $bindings:ident) => {
        struct Shell;

        impl $bindings::exports::witgate::policy::hooks::Guest for Shell {
            type Watcher = Watcher;

            fn describe() -> $crate::policy::Description {
                <$policy as $crate::Policy>::describe()
            }

            fn on_request(
                settings: String,
                context: $crate::policy::Context,
                request: $crate::Request,
            ) -> Result<$crate::policy::Decision, $crate::Error> {
                <$policy as $crate::Policy>::on_request(&settings, &context, &request)
            }
        }

        struct Watcher(std::cell::RefCell<<$policy as $crate::Policy>::Watcher>);

        impl $bindings::exports::witgate::policy::hooks::GuestWatcher for Watcher {
            fn new(settings: String, note: String) -> Self {
                Watcher(std::cell::RefCell::new(<$policy as $crate::Policy>::watcher(&settings, note)))
            }

            fn feed(&self, events: Vec<$crate::Event>) -> $crate::policy::Filtered {
                $crate::Watcher::feed(&mut *self.0.borrow_mut(), events)
            }
        }

        $bindings::export!(Shell with_types_in $bindings);
    };
}
