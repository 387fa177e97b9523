//! The program that only looks, where there is no room to tell all frames apart.

use aya::{
    maps::{PerCpuArray, PerCpuHashMap},
    programs::{SchedClassifier, TestRun as _, TestRunOptions},
};
use tapbridge::{
    common::{
        counters::Traffic,
        fastpath::{map, program},
        observed::{Key, SizeClass},
    },
    fastpath,
};

use crate::{
    Test, context,
    frames::of_length,
    packet::Tag,
    programs::Frames,
    rig::{INGRESS, Rig},
};

pub const TESTS: &[Test] = &[(
    "frames_for_which_there_is_no_room_are_counted_together",
    frames_for_which_there_is_no_room_are_counted_together,
)];

fn frames_for_which_there_is_no_room_are_counted_together() {
    let rig = Rig::new(Frames::Generic);
    let ifindex = rig.ifindex(INGRESS);
    // Loaded like this, it has room for frames of one kind.
    let offsets = fastpath::offsets().expect("offsets");
    let mut object = fastpath::load(&offsets).expect("the programs");
    let observe = object.program_mut(program::OBSERVE).expect("the program");
    let observe: &mut SchedClassifier = observe.try_into().expect("a classifier");
    observe.load().expect("load it");
    for length in [100, 600, 100, 1400, 600] {
        let options = TestRunOptions {
            data_in: Some(&of_length(Tag::None, length).bytes),
            ctx_in: Some(&context::sk_buff(ifindex, 0)),
            ..TestRunOptions::new()
        };
        observe.test_run(options).expect("run it");
    }
    let observed = object.map(map::OBSERVED).expect("the map");
    let observed: PerCpuHashMap<_, Key, Traffic> = observed.try_into().expect("a hash");
    let observed: Vec<_> = observed
        .iter()
        .map(|element| element.expect("an element"))
        .map(|(key, traffic)| {
            (
                key.from,
                key.class(),
                traffic.iter().map(|cpu| cpu.frames).sum::<u64>(),
            )
        })
        .collect();
    assert_eq!(observed, [(ifindex, SizeClass::To128, 2)]);
    let unobserved = object.map(map::UNOBSERVED).expect("the map");
    let unobserved: PerCpuArray<_, u64> = unobserved.try_into().expect("an array");
    let unobserved = unobserved.get(&0, 0).expect("its element");
    assert_eq!(unobserved.iter().sum::<u64>(), 3);
}
