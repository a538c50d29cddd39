//! The policy `guard` as a component: a shell without logic.

witgate_model::export_policy!(witgate_policies::Guard);
