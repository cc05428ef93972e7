package store

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

// BenchmarkRefreshRound prints what one refresh round of n tokens of 2 KB, with
// n audit records, costs in flash (bytes handed to the file system).
func BenchmarkRefreshRound(b *testing.B) {
	for _, n := range []int{1, 10, 32} {
		b.Run(fmt.Sprintf("tokens=%d", n), func(b *testing.B) {
			c, err := OpenCache(context.Background(), b.TempDir(), Options{})
			if err != nil {
				b.Fatal(err)
			}
			before, seq := c.Health().Written, uint64(0)
			for b.Loop() {
				var change Change
				for i := range n {
					seq++
					change.PutTokens = append(change.PutTokens, benchToken(i))
					change.Audit = append(change.Audit, AuditEntry{seq, []byte(strings.Repeat("a", 400))})
				}
				c.Stage(change)
				if err := c.Commit(context.Background()); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(c.Health().Written-before)/float64(b.N)/1024, "KB-written/round")
			b.ReportMetric(float64(c.Health().Bytes)/1024, "KB-file")
			if err := c.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkRenewal prints what one Update of the identity costs: commit, backup
// copy, marker.
func BenchmarkRenewal(b *testing.B) {
	f, err := OpenIdentity(context.Background(), b.TempDir(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	i := 0
	for b.Loop() {
		i++
		err := f.Update(func(tx *IdentityTx) error {
			return tx.PutIdentity(IdentityRecord{ClientID: "a", Current: &KeyRecord{PKCS8: make([]byte, 140), Chain: [][]byte{make([]byte, 700), make([]byte, 600)}, Made: time.Unix(int64(i), 0)}})
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(f.Health().Written)/float64(b.N)/1024, "KB-written/op")
	if err := f.Close(); err != nil {
		b.Fatal(err)
	}
}

func benchToken(i int) TokenRecord {
	return TokenRecord{
		ClientID: "7b1e0000-0000-0000-0000-000000000000", Resource: fmt.Sprintf("https://r%d.example", i),
		AccessToken: strings.Repeat("t", 2048), Issued: time.Unix(1, 0).UTC(), Expires: time.Unix(2, 0).UTC(),
	}
}
