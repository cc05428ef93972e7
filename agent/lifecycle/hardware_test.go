package lifecycle_test

import (
	"slices"
	"testing"

	"postern/agent/lifecycle"
)

func TestOneReplacedPartIsNotACloneAndACopiedCardIsNotTheDevice(t *testing.T) {
	gateway := []string{"board-serial=b1", "mmc-cid=c1", "tpm-ek=t1", "mac=m1", "mac=m2", "machine-id=i1"}
	pi := []string{"board-serial=b1", "mmc-cid=c1", "mac=m1", "machine-id=i1"}
	for _, row := range []struct {
		name            string
		enrolled, found []string
		same            bool
	}{
		{"nothing changed", gateway, gateway, true},
		{"one network card of two replaced", gateway, []string{"board-serial=b1", "mmc-cid=c1", "tpm-ek=t1", "mac=m1", "mac=m9", "machine-id=i1"}, true},
		{"network cards replaced", gateway, []string{"board-serial=b1", "mmc-cid=c1", "tpm-ek=t1", "mac=m9", "machine-id=i1"}, true},
		{"card replaced", pi, []string{"board-serial=b1", "mmc-cid=c9", "mac=m1", "machine-id=i1"}, true},
		{"TPM driver not loaded", gateway, []string{"board-serial=b1", "mmc-cid=c1", "mac=m1", "mac=m2", "machine-id=i1"}, true},
		{"machine-id made anew", gateway, []string{"board-serial=b1", "mmc-cid=c1", "tpm-ek=t1", "mac=m1", "mac=m2", "machine-id=i9"}, true},
		{"a new part beside the old ones", pi, append(slices.Clone(pi), "tpm-ek=t1", "mac=m9"), true},

		{"image copied to another board", gateway, []string{"board-serial=b9", "mmc-cid=c9", "tpm-ek=t9", "mac=m9", "machine-id=i1"}, false},
		{"card moved into another board", gateway, []string{"board-serial=b9", "mmc-cid=c1", "tpm-ek=t9", "mac=m9", "machine-id=i1"}, false},
		{"card moved into another Pi", pi, []string{"board-serial=b9", "mmc-cid=c1", "mac=m9", "machine-id=i1"}, false},
		{"copied into a machine without facts", gateway, nil, false},
		{"copied into one with the machine-id alone", gateway, []string{"machine-id=i1"}, false},

		{"two facts, one replaced", []string{"board-serial=b1", "mac=m1", "machine-id=i1"}, []string{"board-serial=b1", "mac=m9", "machine-id=i1"}, true},
		{"two facts, one and machine-id replaced", []string{"board-serial=b1", "mac=m1", "machine-id=i1"}, []string{"board-serial=b1", "mac=m9", "machine-id=i9"}, false},
		{"two facts, no machine-id to decide", []string{"board-serial=b1", "mac=m1"}, []string{"board-serial=b1", "mac=m9"}, false},
		{"one fact", []string{"mac=m1", "machine-id=i1"}, []string{"mac=m1", "machine-id=i9"}, true},
		{"one fact, cloned", []string{"mac=m1", "machine-id=i1"}, []string{"mac=m9", "machine-id=i1"}, false},
		{"machine-id alone", []string{"machine-id=i1"}, []string{"machine-id=i1", "mac=m1"}, true},
		{"machine-id alone, in another spelling", []string{"machine_id=i1"}, []string{"machine_id=i9"}, false},
		{"nothing enrolled", nil, gateway, true},
		{"nothing that is a fact enrolled", []string{"", "board"}, gateway, true},
	} {
		if got := lifecycle.SameHardware(row.enrolled, row.found); got != row.same {
			t.Errorf("%s: same is %v, want %v", row.name, got, row.same)
		}
	}
}
