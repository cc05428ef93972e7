package site

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Entry is one audit record: a decision, who asked, and why it fell so. It
// never holds a token, secret or key.
type Entry struct {
	Schema    string    `json:"schema"` // "postern.site-audit/1"
	Seq       uint64    `json:"seq"`
	Time      time.Time `json:"time"`
	Action    string    `json:"action"`              // "sign", "token", "identity-assign" …
	Outcome   string    `json:"outcome"`             // "allowed" or "denied"
	Reason    string    `json:"reason,omitempty"`    // why it was denied
	Principal string    `json:"principal,omitempty"` // object id of an identity, "uid:0" of an operator
	Name      string    `json:"name,omitempty"`      // the principal's name
	Source    string    `json:"source,omitempty"`    // address it came from
	Scope     string    `json:"scope,omitempty"`     // resource id acted on
	Request   string    `json:"request,omitempty"`   // correlation id
	Machine   string    `json:"machine,omitempty"`   // name; says which machine used a shared identity
	ClientID  string    `json:"client_id,omitempty"`
	Resource  string    `json:"resource,omitempty"` // of a token
	JTI       string    `json:"jti,omitempty"`
	Serial    string    `json:"serial,omitempty"` // of a certificate
	Expires   time.Time `json:"exp,omitzero"`
	Token     string    `json:"token,omitempty"`  // first 8 bytes of the token's SHA-256, hex
	Count     int       `json:"count,omitempty"`  // equal denials that this record stands for, if more than one
	Missed    int       `json:"missed,omitempty"` // other denials since the last record that none was written for
	Prev      string    `json:"prev"`             // SHA-256 of the record before, hex; empty in the first
}

// The outcomes.
const (
	allowed = "allowed"
	denied  = "denied"
)

const auditSchema = "postern.site-audit/1"

// note adds e to the audit of the transaction.
func (t *tx) note(e Entry) {
	if e.Outcome == "" {
		e.Outcome = allowed
	}
	t.entries = append(t.entries, e)
}

// writeAudit appends the transaction's records to the ring, as part of it.
func (t *tx) writeAudit() error {
	if len(t.entries) == 0 {
		return nil
	}
	head, err := load[auditHead](t, bucketAuditHead, "head")
	if errors.Is(err, errAbsent) {
		head, err = auditHead{First: 1, Next: 1}, nil
	}
	if err != nil {
		return err
	}
	for i := range t.entries {
		e := &t.entries[i]
		e.Schema, e.Seq, e.Time, e.Prev = auditSchema, head.Next, t.now.UTC(), head.Last
		line, err := json.Marshal(e)
		if err != nil {
			return fmt.Errorf("audit: %w", err)
		}
		if err := save(t, bucketAudit, auditKey(e.Seq), json.RawMessage(line)); err != nil {
			return err
		}
		head.Next++
		head.Bytes += int64(len(line))
		head.Last = lineDigest(line)
	}
	if err := t.trimAudit(&head); err != nil {
		return err
	}
	return save(t, bucketAuditHead, "head", head)
}

// trimAudit drops the oldest records beyond the ring's bounds.
func (t *tx) trimAudit(head *auditHead) error {
	for head.Next-head.First > t.a.auditRecords || head.Bytes > t.a.auditBytes {
		line, err := load[json.RawMessage](t, bucketAudit, auditKey(head.First))
		if err != nil && !errors.Is(err, errAbsent) {
			return err
		}
		if err := drop(t, bucketAudit, auditKey(head.First)); err != nil {
			return err
		}
		head.Bytes -= int64(len(line))
		if head.First >= head.Exported {
			head.Overwritten++
			if head.Overwritten == 1 {
				t.a.log.Warn("audit records are overwritten that were never exported", "event", "audit-overwritten", "seq", head.First)
			}
		}
		head.First++
	}
	return nil
}

func auditKey(seq uint64) string { return fmt.Sprintf("%020d", seq) }

func lineDigest(line []byte) string {
	sum := sha256.Sum256(line)
	return hex.EncodeToString(sum[:])
}

// log writes the record as a line, without what is empty in it.
func (e Entry) log(l *slog.Logger) {
	level := slog.LevelInfo
	if e.Outcome == denied {
		level = slog.LevelWarn
	}
	attrs := []slog.Attr{slog.String("event", "site-"+e.Action), slog.Uint64("seq", e.Seq)}
	for _, a := range [][2]string{
		{"reason", e.Reason},
		{"principal", e.Principal},
		{"source", e.Source},
		{"machine", e.Machine},
		{"identity", e.ClientID},
		{"resource", e.Resource},
		{"serial", e.Serial},
		{"token", e.Token},
		{"correlation", e.Request},
	} {
		if a[1] != "" {
			attrs = append(attrs, slog.String(a[0], a[1]))
		}
	}
	l.LogAttrs(context.Background(), level, "authority: "+e.Action+" "+e.Outcome, attrs...)
}

// AuditQuery chooses audit records.
type AuditQuery struct {
	Since  uint64 `json:"since"`  // first sequence number; 0 means the oldest that is kept
	Limit  int    `json:"limit"`  // at most so many; 0 means 1000
	Export bool   `json:"export"` // the caller keeps them: they count as exported
}

// AuditPage is an answer to an AuditQuery.
type AuditPage struct {
	Lines       []json.RawMessage `json:"lines"` // each one Entry, oldest first, exactly as it was chained
	Next        uint64            `json:"next"`  // where to go on
	Overwritten uint64            `json:"overwritten"`
}

// Audit returns records from query.Since on, oldest first. Records that the
// ring has dropped are skipped. Following is asking again with Since = Next.
func (a *Authority) Audit(ctx context.Context, query AuditQuery) (AuditPage, error) {
	if query.Limit <= 0 || query.Limit > 1000 {
		query.Limit = 1000
	}
	var page AuditPage
	read := func(t *tx) error {
		page = AuditPage{Lines: []json.RawMessage{}, Next: max(query.Since, 1)}
		head, err := load[auditHead](t, bucketAuditHead, "head")
		if errors.Is(err, errAbsent) {
			return nil
		}
		if err != nil {
			return err
		}
		page.Overwritten = head.Overwritten
		for page.Next = max(query.Since, head.First); page.Next < head.Next && len(page.Lines) < query.Limit; page.Next++ {
			line, err := load[json.RawMessage](t, bucketAudit, auditKey(page.Next))
			if err != nil {
				return fmt.Errorf("audit record %d: %w", page.Next, err)
			}
			page.Lines = append(page.Lines, line)
		}
		if query.Export && page.Next > head.Exported {
			head.Exported = page.Next
			return save(t, bucketAuditHead, "head", head)
		}
		return nil
	}
	run := func() error { return a.view(read) }
	if query.Export {
		run = func() error { return a.update(ctx, read) }
	}
	err := run()
	return page, err
}
