use super::*;

const MILLI: u64 = 1_000_000;

fn queuing(queues: usize, hand_size: usize, length_limit: usize) -> Option<Queuing> {
    Some(Queuing { queues, hand_size, length_limit })
}

fn runs(arrival: Arrival) -> Running {
    match arrival {
        Arrival::Runs(running) => running,
        other => panic!("{other:?}"),
    }
}

fn waits(arrival: Arrival) -> Ticket {
    match arrival {
        Arrival::Waits(ticket, _) => ticket,
        other => panic!("{other:?}"),
    }
}

#[test]
fn without_queues_a_request_runs_or_is_refused() {
    let mut set = QueueSet::new(queuing(0, 0, 0), 3, 0);
    let first = runs(set.arrive(0, Work::of(2), 0));
    assert_eq!(set.arrive(0, Work::of(2), 0), Arrival::Refused(Refusal::ConcurrencyLimit));
    let second = runs(set.arrive(0, Work::ONE, 0));
    set.finish(1, first);
    set.finish(1, second);
    assert!(set.is_idle());
    // Wider than the limit: alone.
    let wide = runs(set.arrive(2, Work::of(9), 0));
    assert_eq!(set.arrive(2, Work::ONE, 0), Arrival::Refused(Refusal::ConcurrencyLimit));
    set.finish(3, wide);
    assert_eq!(set.seats(), (0, 0));
}

#[test]
fn without_settings_everything_runs() {
    let mut set = QueueSet::new(None, 0, 0);
    let running: Vec<Running> = (0..1000).map(|_| runs(set.arrive(0, Work::of(10), 7))).collect();
    assert_eq!((set.requests(), set.seats()), ((0, 1000), (10_000, 0)));
    running.into_iter().for_each(|running| set.finish(5, running));
    assert!(set.is_idle());
}

#[test]
fn queues_have_a_length_and_waiting_can_be_given_up() {
    let mut set = QueueSet::new(queuing(1, 1, 2), 1, 0);
    let first = runs(set.arrive(0, Work::ONE, 0));
    let (second, third) = (waits(set.arrive(0, Work::ONE, 0)), waits(set.arrive(0, Work::ONE, 0)));
    assert_eq!(set.arrive(0, Work::ONE, 0), Arrival::Refused(Refusal::QueueFull));
    assert!(set.cancel(1, second));
    assert!(!set.cancel(1, second));
    set.finish(2, first);
    let dispatched = set.take_dispatched();
    assert_eq!(dispatched.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [third.id]);
    assert!(!set.cancel(2, third));
    dispatched.into_iter().for_each(|(_, running)| set.finish(3, running));
    assert!(set.is_idle() && set.seats() == (0, 0));
}

#[test]
fn seats_linger_after_a_write() {
    let mut set = QueueSet::new(queuing(4, 1, 10), 4, 0);
    let write = runs(set.arrive(0, Work { seats: 1, final_seats: 4, lingering: 5 * MILLI }, 0));
    let next = waits(set.arrive(0, Work::ONE, 1));
    set.finish(MILLI, write);
    assert_eq!((set.requests(), set.seats(), set.next_release()), ((1, 0), (4, 1), Some(6 * MILLI)));
    set.tick(6 * MILLI);
    assert_eq!(set.take_dispatched().iter().map(|(id, _)| *id).collect::<Vec<_>>(), [next.id]);
    assert_eq!((set.seats(), set.next_release()), ((1, 0), None));
    // What comes after is made as narrow as the level.
    let mut narrow = QueueSet::new(queuing(1, 1, 10), 2, 0);
    let write = runs(narrow.arrive(0, Work { seats: 1, final_seats: 4, lingering: 5 * MILLI }, 0));
    assert_eq!((write.seats(), write.work.lingering), (2, 10 * MILLI));
}

#[test]
fn settings_change_under_load() {
    let mut set = QueueSet::new(queuing(8, 1, 10), 1, 0);
    let first = runs(set.arrive(0, Work::ONE, 7));
    let tickets: Vec<Ticket> = (0..8).map(|hash| waits(set.arrive(0, Work::ONE, hash))).collect();
    set.configure(1, queuing(2, 1, 10), 3);
    let dispatched = set.take_dispatched();
    assert_eq!((dispatched.len(), set.queues.len()), (2, 8), "queues stay while somebody is in them");
    set.finish(2, first);
    dispatched.into_iter().for_each(|(_, running)| set.finish(2, running));
    while !set.is_idle() {
        set.take_dispatched().into_iter().for_each(|(_, running)| set.finish(3, running));
    }
    assert_eq!((tickets.len(), set.queues.len()), (8, 2));
    set.configure(4, None, 0);
    assert!(set.queues.is_empty());
}

/// Flows in a closed loop with so many requests at once, each of so many seats and milliseconds: the seat-milliseconds
/// that each got.
fn simulate(set: &mut QueueSet, flows: &[(u64, usize, u64, u64)], until: u64) -> Vec<u64> {
    let mut got = vec![0; flows.len()];
    let mut running: Vec<(u64, usize, Running)> = Vec::new();
    let mut waiting: Vec<(u64, usize)> = Vec::new();
    let mut now = 0;
    let mut begin: Vec<usize> =
        flows.iter().enumerate().flat_map(|(flow, (_, count, ..))| vec![flow; *count]).collect();
    while now < until {
        for flow in std::mem::take(&mut begin) {
            let (hash, _, seats, took) = flows[flow];
            match set.arrive(now, Work::of(seats), hash) {
                Arrival::Runs(request) => running.push((now + took * MILLI, flow, request)),
                Arrival::Waits(ticket, _) => waiting.push((ticket.id, flow)),
                Arrival::Refused(_) => panic!("refused"),
            }
        }
        for (id, request) in set.take_dispatched() {
            let at = waiting.iter().position(|(other, _)| *other == id).unwrap();
            let (_, flow) = waiting.swap_remove(at);
            running.push((now + flows[flow].3 * MILLI, flow, request));
        }
        assert!(set.seats().0 <= set.limit());
        let next = running.iter().enumerate().min_by_key(|(_, (due, ..))| *due).unwrap().0;
        let (due, flow, request) = running.swap_remove(next);
        now = due;
        got[flow] += request.seats() * flows[flow].3;
        set.finish(now, request);
        begin.push(flow);
        for (id, request) in set.take_dispatched() {
            let at = waiting.iter().position(|(other, _)| *other == id).unwrap();
            let (_, flow) = waiting.swap_remove(at);
            running.push((now + flows[flow].3 * MILLI, flow, request));
        }
    }
    got
}

#[test]
fn flows_get_equal_shares_however_much_they_ask_for() {
    for (limit, flows) in [
        (4, vec![(0, 20, 1, 5), (1, 5, 1, 5)]),
        (4, vec![(0, 20, 1, 5), (1, 5, 1, 20)]),
        (10, vec![(0, 20, 5, 10), (1, 20, 1, 10)]),
        (6, vec![(0, 40, 2, 30), (1, 10, 1, 3), (2, 10, 3, 10)]),
    ] {
        let mut set = QueueSet::new(queuing(3, 1, 1000), limit, 0);
        let got = simulate(&mut set, &flows, 20_000 * MILLI);
        let mean = got.iter().sum::<u64>() as f64 / got.len() as f64;
        let even = got.iter().all(|got| (*got as f64 / mean - 1.0).abs() < 0.12);
        assert!(even, "{flows:?}: {got:?}");
        assert!(got.iter().sum::<u64>() > limit * 20_000 * 8 / 10, "seats are used: {got:?}");
    }
}

#[test]
fn a_flow_that_asks_for_little_gets_it_at_once() {
    let mut set = QueueSet::new(queuing(2, 1, 1000), 4, 0);
    // Half a seat is what it asks for, out of two that are its share.
    let noisy: Vec<_> = (0..50).map(|_| set.arrive(0, Work::ONE, 0)).collect();
    let mut running: Vec<Running> =
        noisy.into_iter().filter_map(|arrival| if let Arrival::Runs(r) = arrival { Some(r) } else { None }).collect();
    let quiet = waits(set.arrive(MILLI, Work::ONE, 1));
    set.finish(5 * MILLI, running.pop().unwrap());
    assert_eq!(set.take_dispatched()[0].0, quiet.id, "it comes before the 46 that have waited longer");
}
