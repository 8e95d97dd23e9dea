use proxy_common::reason::{Hook, Reason};
use proxy_common::wire::ServiceName;
use proxy_userspace::kernel::read::Reader;
use proxy_userspace::kernel::{KernelError, Runtime};
use proxy_userspace::reconcile::Tables;

use crate::sandbox::sandbox;

#[test]
fn tables_are_read_beside_an_agent_and_without_one() {
    sandbox(async |sandbox| {
        let mut agent = Runtime::open(&sandbox.options()).unwrap();
        let name = ServiceName {
            namespace: ServiceName::field("default").unwrap(),
            name: ServiceName::field("web").unwrap(),
            port: ServiceName::field("").unwrap(),
            protocol: 6,
            algorithm: 1,
            pad: [0; 2],
        };
        agent.tables.put_names(&[(7, name), (3, name)]).unwrap();
        agent.tables.set_slots(5, &[9]);
        let check = || {
            let reader = Reader::open(&sandbox.pin_dir()).unwrap();
            assert_eq!(reader.names().unwrap(), [(3, name), (7, name)]);
            assert_eq!(reader.slots().unwrap()[4..7], [0, 9, 0]);
            assert!(reader.frontends().unwrap().is_empty());
            assert!(reader.flows().unwrap().is_empty());
            assert_eq!(reader.backends().unwrap().len(), 128);
            assert_eq!(reader.maglev().unwrap().len(), 1024);
            let counters = reader.counters().unwrap();
            assert_eq!(counters.len(), Hook::ALL.len() * Reason::ALL.len());
            assert!(counters.iter().all(|count| count.packets == 0));
        };
        check();
        drop(agent);
        check();
    });
}

#[test]
fn where_nothing_runs_it_says_so() {
    sandbox(async |sandbox| {
        let error = Reader::open(&sandbox.pin_dir()).map(drop).unwrap_err();
        assert!(matches!(error, KernelError::NotRunning { .. }), "{error}");
        std::fs::create_dir_all(sandbox.pin_dir().join("v99/maps")).unwrap();
        let error = Reader::open(&sandbox.pin_dir()).map(drop).unwrap_err();
        assert!(matches!(&error, KernelError::OtherLayout { found, .. } if found == "99"), "{error}");
    });
}
