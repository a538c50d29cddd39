//! Probing endpoints that rest, so that no request has to find out whether they serve again.
//!
//! Where `health.probe_interval` is set, each endpoint that rests is asked the adapter's own question so often, give or
//! take a tenth. An answer of 2xx makes it well; no answer, 429 and 5xx let it rest on; anything else says nothing: the
//! next request finds out, as without probes. An adapter that has no such question is never asked.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::future::join_all;
use witgate_config::Provider;

use crate::gateway::Gateway;
use crate::health::Verdict;
use crate::path;
use crate::pool::Pool;
use crate::ports::{Adapter, Ports};

/// The most probes of one provider at a time.
const MOST_AT_ONCE: usize = 8;

impl Gateway {
    /// Probes endpoints that rest, as long as it is polled; at once complete where nothing of the kind is configured. A
    /// runtime that lives longer than one request runs it beside them.
    pub async fn watch<P: Ports>(&self, ports: &Arc<P>) {
        let watched = self.config.providers.values();
        let watched = watched.filter(|p| !p.health.probe_interval.is_zero() && !p.health.rest.is_zero());
        join_all(watched.map(|provider| self.watch_provider(ports.as_ref(), provider))).await;
    }

    async fn watch_provider<P: Ports>(&self, ports: &P, provider: &Provider) {
        let interval = provider.health.probe_interval;
        loop {
            let chance = (ports.random() as u32) as f64 / f64::from(u32::MAX);
            ports.sleep_until(ports.now() + interval.mul_f64(0.9 + 0.2 * chance)).await;
            let Some(pools) = self.pools.get(&provider.name) else { return };
            let regions = pools.regions.iter().map(|(region, pool)| (Some(region.as_str()), pool));
            let all = regions.chain([(None, &pools.own)]);
            let resting = all.flat_map(|(region, pool)| pool.resting().into_iter().map(move |at| (region, pool, at)));
            let probes = resting.map(|(region, pool, at)| self.probe_one(ports, provider, region, (pool, at)));
            // Collected first: a borrowing stream would not be known to be `Send`.
            let probes: Vec<_> = probes.collect();
            futures_util::stream::iter(probes).for_each_concurrent(MOST_AT_ONCE, |probe| probe).await;
        }
    }

    async fn probe_one<P: Ports>(
        &self,
        ports: &P,
        provider: &Provider,
        region: Option<&str>,
        (pool, at): (&Arc<Pool>, usize),
    ) {
        let mut settings = self.own_settings(provider).0.clone();
        if let (Some(region), Some(settings)) = (region, settings.as_object_mut()) {
            settings.insert("region".to_owned(), region.into());
        }
        let Ok(mut adapter) = ports.adapter(&provider.name) else { return };
        let Ok(Ok(Some(request))) = adapter.probe(&settings.to_string()) else { return };
        let region = path::region(&request.auth, &settings).map(str::to_owned);
        let endpoints = path::endpoints(provider, &settings, region.as_deref(), &adapter);
        let Some(endpoint) = endpoints.get(at) else { return };
        let told = self.probe_endpoint(ports, provider, (endpoint, region.as_deref()), request).await;
        pool.probed(at, ports.now(), told.map_or_else(|(_, verdict)| verdict, |()| Verdict::Served));
    }
}
