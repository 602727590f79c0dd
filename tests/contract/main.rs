//! The contracts of the three ports, one suite each, and the implementations that are held to them.
//!
//! A suite knows nothing of what it tests but the port and a world to set it up in. `local` and `faults` add what only the implementations
//! on this machine promise, `failover` what only the log of several nodes does.

mod bus;
mod failover;
mod faults;
mod jetstream;
mod jetstream_faults;
mod journal;
mod local;
mod log;
mod logs;
mod members;
mod nats;
mod nats_certificates;
mod nats_connection;
mod nats_losses;
mod remote;
mod routed;
mod world;

use tidings::bus::LocalBus;

use self::{
    jetstream::JetStreamWorld,
    local::LocalWorld,
    nats::{ServedBus, Version},
    remote::RemoteWorld,
    routed::RoutedWorld,
};

/// Runs each check of a suite as a test of its own, each in a world of its own; one that is `None` has said why it is skipped.
macro_rules! suite {
    ($suite:ident in optional $world:expr; $($check:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $check() {
                if let Some(world) = $world {
                    crate::$suite::$check(world).await;
                }
            }
        )+
    };
    ($suite:ident in $world:expr; $($check:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $check() {
                crate::$suite::$check($world).await;
            }
        )+
    };
}

mod local_journal {
    use super::*;

    suite!(journal in LocalWorld::new();
        what_was_acknowledged_survives_a_restart,
        one_callers_appends_are_in_order,
        all_topics_of_a_publish_are_next_to_each_other,
        a_repeated_key_appends_nothing,
        a_repeated_key_in_flight_appends_nothing,
        a_key_is_known_after_a_restart,
        a_key_is_forgotten_after_its_window,
        time_never_goes_back,
        what_is_announced_can_be_read,
        announcements_go_on_after_a_restart,
        a_dropped_ticket_changes_nothing,
        what_has_a_deadline_is_durable_or_certainly_not,
    );
}

mod routed_here {
    use super::*;

    suite!(journal in RoutedWorld::here();
        what_was_acknowledged_survives_a_restart,
        one_callers_appends_are_in_order,
        all_topics_of_a_publish_are_next_to_each_other,
        a_repeated_key_appends_nothing,
        a_repeated_key_in_flight_appends_nothing,
        a_key_is_known_after_a_restart,
        a_key_is_forgotten_after_its_window,
        time_never_goes_back,
        what_is_announced_can_be_read,
        announcements_go_on_after_a_restart,
        a_dropped_ticket_changes_nothing,
        what_has_a_deadline_is_durable_or_certainly_not,
    );
}

mod routed_elsewhere {
    use super::*;

    suite!(journal in RoutedWorld::elsewhere();
        what_was_acknowledged_survives_a_restart,
        one_callers_appends_are_in_order,
        all_topics_of_a_publish_are_next_to_each_other,
        a_repeated_key_appends_nothing,
        a_repeated_key_in_flight_appends_nothing,
        a_key_is_known_after_a_restart,
        a_key_is_forgotten_after_its_window,
        time_never_goes_back,
        what_is_announced_can_be_read,
        announcements_go_on_after_a_restart,
        a_dropped_ticket_changes_nothing,
        what_has_a_deadline_is_durable_or_certainly_not,
    );
}

mod local_log {
    use super::*;

    suite!(log in LocalWorld::new();
        pages_hold_what_was_appended,
        large_payloads_come_back_whole,
        other_histories_are_told_apart,
        a_restart_is_no_other_history,
        heads_tell_the_last_of_each_slot,
        nothing_below_the_floor_is_read,
        the_floor_keeps_what_is_young_enough,
        the_floor_survives_a_restart,
        times_are_located,
    );
}

mod remote_log {
    use super::*;

    suite!(log in RemoteWorld::new();
        pages_hold_what_was_appended,
        large_payloads_come_back_whole,
        other_histories_are_told_apart,
        a_restart_is_no_other_history,
        heads_tell_the_last_of_each_slot,
        nothing_below_the_floor_is_read,
        the_floor_keeps_what_is_young_enough,
        the_floor_survives_a_restart,
        times_are_located,
    );
}

mod jetstream_journal {
    use super::*;

    suite!(journal in JetStreamWorld::new();
        what_was_acknowledged_survives_a_restart,
        one_callers_appends_are_in_order,
        all_topics_of_a_publish_are_next_to_each_other,
        a_repeated_key_appends_nothing,
        a_repeated_key_in_flight_appends_nothing,
        a_key_is_known_after_a_restart,
        a_key_is_forgotten_after_its_window,
        time_never_goes_back,
        what_is_announced_can_be_read,
        announcements_go_on_after_a_restart,
        a_dropped_ticket_changes_nothing,
        what_has_a_deadline_is_durable_or_certainly_not,
    );
}

mod jetstream_log {
    use super::*;

    suite!(log in JetStreamWorld::new();
        pages_hold_what_was_appended,
        large_payloads_come_back_whole,
        other_histories_are_told_apart,
        a_restart_is_no_other_history,
        heads_tell_the_last_of_each_slot,
        nothing_below_the_floor_is_read,
        the_floor_keeps_what_is_young_enough,
        the_floor_survives_a_restart,
        times_are_located,
    );
}

mod local_bus {
    use super::*;

    suite!(bus in LocalBus::default();
        a_line_hears_its_slots_in_order,
        a_line_does_not_hear_other_slots,
        every_line_hears_digests,
        every_line_hears_what_it_follows,
        losses_are_told,
        waiting_ends_with_a_notice,
        lines_end_with_the_bus,
    );
}

mod nats_bus {
    use super::*;

    suite!(bus in optional ServedBus::start(Version::Newest).await;
        a_line_hears_its_slots_in_order,
        a_line_does_not_hear_other_slots,
        every_line_hears_digests,
        every_line_hears_what_it_follows,
        losses_are_told,
        waiting_ends_with_a_notice,
        lines_end_with_the_bus,
    );
}

mod nats_bus_of_debian {
    use super::*;

    suite!(bus in optional ServedBus::start(Version::Debian).await;
        a_line_hears_its_slots_in_order,
        a_line_does_not_hear_other_slots,
        every_line_hears_digests,
        every_line_hears_what_it_follows,
        losses_are_told,
        waiting_ends_with_a_notice,
        lines_end_with_the_bus,
    );
}
