//! What the journal promises through power cuts: thousands of recorded histories, cut anywhere, with any subset of the
//! writes that were not synced, and carried on from there.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::{collections::BTreeMap, sync::Arc};

use whimbrel::{
    journal::{Journal, JournalOptions, Kind, Lsn, Read, Record, Urgency},
    testing::{CrashDisk, Dice, Survivors},
};

fn options() -> JournalOptions {
    JournalOptions { segment_bytes: 64 * 1024, spare_segments: 1, sync_interval: None }
}

/// What an owner knows of its journal, and what it was promised.
#[derive(Clone, Default)]
struct Owner {
    /// Every data record appended; `None` where a crash left a hole.
    records: BTreeMap<Lsn, Option<Vec<u8>>>,
    /// Number of notes ever, as its state.
    notes: u64,
    /// Notes that an earlier crash left holes among.
    lost_notes: u64,
    next: Lsn,
    trimmed: Lsn,
    /// At these positions of the disk's history, so much was durable: records, notes, trims.
    promises: Vec<(usize, Lsn, u64, Lsn)>,
    /// Trims asked for, and the positions at which they were.
    trims: Vec<(usize, Lsn)>,
}

impl Owner {
    /// What was durable for sure at `position`.
    fn promised(&self, position: usize) -> (Lsn, u64, Lsn) {
        let kept = self.promises.iter().take_while(|promise| promise.0 <= position);
        kept.last().map_or((0, 0, 0), |promise| (promise.1, promise.2, promise.3))
    }
}

fn payload(dice: &mut Dice, lsn: Lsn, life: u64) -> Vec<u8> {
    let len = match dice.below(4) {
        0 => dice.below(40),
        1 => dice.below(700),
        2 => dice.below(5_000),
        _ => dice.below(14_000),
    };
    let mut payload = vec![(lsn * 31 + life) as u8; len as usize];
    payload.extend_from_slice(&lsn.to_le_bytes());
    payload
}

/// Lets an owner use the journal on `disk` for a while. `owner` agrees with what is on it.
fn live(disk: &CrashDisk, owner: &mut Owner, dice: &mut Dice, life: u64) {
    let (journal, recovery) = Journal::open(Arc::new(disk.clone()), options()).unwrap();
    assert_eq!(recovery.next, owner.next.max(1));
    owner.promises = vec![(disk.position(), owner.next - 1, owner.notes, owner.trimmed)];
    owner.trims = vec![(0, owner.trimmed)];
    for _ in 0..4 + dice.below(12) {
        let mut payloads = Vec::new();
        let mut notes = 0;
        for index in 0..1 + dice.below(4) {
            if dice.chance(30) {
                notes += 1;
                payloads.push((Kind::Note, (owner.notes + notes).to_le_bytes().to_vec()));
            } else {
                let before = payloads.iter().filter(|(kind, _)| *kind == Kind::Data).count() as u64;
                let _ = index;
                let lsn = owner.next + before;
                payloads.push((Kind::Data, payload(dice, lsn, life)));
            }
        }
        let parts: Vec<[&[u8]; 1]> = payloads.iter().map(|(_, payload)| [payload.as_slice()]).collect();
        let records: Vec<Record<'_>> =
            payloads.iter().zip(&parts).map(|((kind, _), parts)| Record { kind: *kind, parts }).collect();
        let urgency = if dice.chance(20) { Urgency::Now } else { Urgency::Lazy };
        let state = owner.notes;
        let appended = journal
            .append(&records, urgency, &mut |snapshot| {
                snapshot.extend_from_slice(&state.to_le_bytes());
                snapshot.resize(8 + (state as usize % 3) * 3_000, 0);
            })
            .unwrap();
        assert_eq!(appended.first, owner.next);
        for (kind, payload) in payloads {
            if kind == Kind::Data {
                owner.records.insert(owner.next, Some(payload));
                owner.next += 1;
            }
        }
        owner.notes += notes;
        if dice.chance(25) && owner.next > 1 {
            let up_to = owner.trimmed.max(owner.next.saturating_sub(1 + dice.below(12)));
            owner.trims.push((disk.position(), up_to));
            owner.trimmed = up_to;
            journal.trim(up_to).unwrap();
        }
        if dice.chance(70) {
            let state = (owner.next - 1, owner.notes, owner.trimmed);
            let ticket = if dice.chance(50) { journal.latest() } else { appended.ticket };
            let trimmed = if ticket == journal.latest() { state.2 } else { 0 };
            journal.wait_durable(ticket).unwrap();
            owner.promises.push((
                disk.position(),
                state.0,
                state.1,
                trimmed.max(owner.promised(usize::MAX).2),
            ));
        }
    }
}

/// Opens what a cut left, and checks it against what was promised. Returns the owner as it is then.
fn check(disk: &CrashDisk, owner: &Owner, position: usize, what: &str) -> Owner {
    let (records, notes, trimmed) = owner.promised(position);
    let (journal, recovery) = Journal::open(Arc::new(disk.clone()), options()).expect(what);
    let (first, next) = (recovery.first, recovery.next);
    assert!(next > records, "{what}: records up to {records} were durable, the next is {next}");
    assert!(next <= owner.next, "{what}: {next} was never appended");
    assert!(first > trimmed, "{what}: the trim of {trimmed} was durable, the first is {first}");
    let asked = owner.trims.iter().filter(|trim| trim.0 < position || trim.0 == 0).map(|trim| trim.1).max();
    assert!(first <= asked.unwrap_or(0) + 1, "{what}: {first} is the first, trimmed was {asked:?}");
    assert!(first <= next, "{what}");

    // The state: a snapshot, then notes without gaps as far as they were promised.
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes[..8].try_into().unwrap());
    let mut state = recovery.snapshot.as_deref().map_or(0, number);
    let mut lost_notes = 0;
    for note in &recovery.notes {
        let note = number(note);
        assert!(note > state, "{what}: note {note} behind {state}");
        if note != state + 1 {
            assert!(!recovery.damaged.is_empty(), "{what}: note {note} behind {state} without damage");
            assert!(state >= notes || owner.lost_notes > 0, "{what}: notes up to {notes} were durable");
            lost_notes += 1;
        }
        state = note;
    }
    assert!(state >= notes, "{what}: notes up to {notes} were durable, the state is of {state}");
    assert!(state <= owner.notes);

    let mut after = Owner {
        next,
        trimmed: first - 1,
        notes: state,
        lost_notes: owner.lost_notes + lost_notes,
        ..Owner::default()
    };
    let mut expected = first;
    let mut reader = journal.reader(1);
    while let Some(read) = reader.next().expect(what) {
        match read {
            Read::Record(lsn, payload) => {
                assert_eq!(lsn, expected, "{what}");
                let appended = owner.records[&lsn].as_ref();
                assert_eq!(Some(&payload.to_vec()), appended, "{what}: record {lsn}");
                after.records.insert(lsn, Some(payload.to_vec()));
                expected += 1;
            }
            Read::Damaged(damage) => {
                assert_eq!(damage.first, expected, "{what}");
                for lsn in damage.first..=damage.last {
                    let known = owner.records[&lsn].is_none();
                    assert!(known || lsn > records, "{what}: record {lsn} was durable: {damage:?}");
                    after.records.insert(lsn, None);
                }
                expected = damage.last + 1;
            }
        }
    }
    assert_eq!(expected, next, "{what}: records are missing at the end");
    after
}

fn history(seed: u64, cuts: Option<u64>) -> usize {
    let mut dice = Dice::new(seed);
    let mut disk = CrashDisk::new();
    let mut owner = Owner { next: 1, ..Owner::default() };
    let mut checked = 0;
    for life in 0..3 {
        live(&disk, &mut owner, &mut dice, life);
        let end = disk.position();
        let positions: Vec<usize> = match cuts {
            Some(cuts) => (0..cuts).map(|_| dice.below(end as u64 + 1) as usize).chain([end]).collect(),
            None => (0..=end).collect(),
        };
        for position in positions {
            for survivors in
                [Survivors::None, Survivors::All, Survivors::Some(dice.roll()), Survivors::Some(dice.roll())]
            {
                let what = format!("seed {seed}, life {life}, cut at {position} of {end}, {survivors:?}");
                let left = disk.cut(position, survivors);
                check(&left, &owner, position, &what);
                checked += 1;
            }
        }
        // Live on with one of the outcomes.
        let position = dice.below(end as u64 + 1) as usize;
        let survivors = Survivors::Some(dice.roll());
        let what = format!("seed {seed}, life {life} ends at {position} of {end}, {survivors:?}");
        let left = disk.cut(position, survivors);
        owner = check(&left, &owner, position, &what);
        // Sometimes the power fails again right after recovery: what it found must have become durable.
        if dice.chance(50) {
            let again = left.cut(left.position(), Survivors::Some(dice.roll()));
            owner.promises = vec![(0, owner.next - 1, owner.notes, owner.trimmed)];
            owner.trims = vec![(0, owner.trimmed)];
            owner = check(&again, &owner, 0, &format!("{what}, twice"));
            disk = again.copy();
        } else {
            disk = left.copy();
        }
    }
    checked
}

#[test]
fn whatever_was_durable_is_there_after_any_cut() {
    let checked: usize = (0..1_500).map(|seed| history(seed, Some(2))).sum();
    assert!(checked > 50_000, "{checked}");
}

#[test]
fn every_cut_point_of_some_histories() {
    for seed in 1_000_000..1_000_025 {
        history(seed, None);
    }
}
