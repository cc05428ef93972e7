package site

import (
	"context"
	"crypto/x509"
	"errors"
	"net/http"
	"strconv"
	"strings"
)

// assignmentList is the answer to "which identities are mine" (firmware-notes/authorities.md).
type assignmentList struct {
	Generation uint64           `json:"generation"`
	TenantID   string           `json:"tenant_id"`
	Identities []assignmentItem `json:"identities"`
}

type assignmentItem struct {
	Kind       string  `json:"kind"`
	Name       string  `json:"name"`
	ClientID   string  `json:"client_id"`
	ObjectID   string  `json:"object_id"`
	TenantID   string  `json:"tenant_id"`
	ResourceID string  `json:"resource_id"`
	Enroll     *enroll `json:"enroll,omitempty"`
}

type enroll struct {
	OTT     string `json:"ott"`
	Expires string `json:"expires_on"` // unix seconds, as a string
}

// serveAssignments is GET /v1/machines/self/identities. A caller who has the
// newest list and nothing to fetch gets 304. It is also the heartbeat.
func (a *Authority) serveAssignments(w http.ResponseWriter, r *http.Request) {
	e := Entry{Action: "assignments"}
	cert := peer(r)
	if cert == nil {
		a.stepRefuse(w, r, e, unauthorized(errNoCertificate))
		return
	}
	e.ClientID, e.Serial = cut(cert.Subject.CommonName, 36), cert.SerialNumber.String()
	applied := generationOf(r.Header.Get("If-None-Match"))
	h, list, err := a.assignments(r.Context(), cert, applied, r.RemoteAddr)
	if err != nil {
		a.stepRefuse(w, r, e, err)
		return
	}
	a.touch(r.Context(), h.machine.VMID)
	w.Header().Set("ETag", `"`+strconv.FormatUint(list.Generation, 10)+`"`)
	if applied == list.Generation && !list.offers() {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	writeJSON(w, http.StatusOK, list)
}

// assignments reads the list of the machine that holds cert. Mostly nothing is
// written: only what became known by the call, and new one-time tokens, are.
func (a *Authority) assignments(ctx context.Context, cert *x509.Certificate, applied uint64, source string) (h holder, list assignmentList, err error) {
	var write bool
	look := func(t *tx) (err error) {
		h, err = t.stepHolder(cert)
		if err == nil && h.identity.Kind != systemAssigned {
			err = forbidden("only the machine's system-assigned identity may ask for its identities")
		}
		if err == nil {
			list, write, err = t.assignments(h, applied)
		}
		return err
	}
	err = a.view(look)
	if err == nil && (write || h.certificate.Seen.IsZero()) {
		err = a.update(ctx, func(t *tx) error {
			if err := look(t); err != nil {
				return err
			}
			return errors.Join(t.seen(&h), t.offer(h, &list, applied, source))
		})
	}
	return h, list, err
}

func (l assignmentList) offers() bool {
	for _, i := range l.Identities {
		if i.Enroll != nil {
			return true
		}
	}
	return false
}

// assignments lists the identities of the machine with the one-time tokens
// that are out; write says that offer has something to write.
func (t *tx) assignments(h holder, applied uint64) (list assignmentList, write bool, err error) {
	list = assignmentList{Generation: h.machine.Generation, TenantID: t.a.tenant, Identities: []assignmentItem{t.item(h.identity)}}
	for _, clientID := range h.machine.Holds {
		i, err := load[identityRecord](t, bucketIdentity, clientID)
		if err != nil {
			return list, false, err
		}
		item := t.item(i)
		holding, err := t.holding(h.machine.VMID, clientID)
		if err != nil {
			return list, false, err
		}
		may, err := t.mayEnroll(holding, applied)
		if err != nil {
			return list, false, err
		}
		if !may {
			arrived, err := t.undelivered(holding)
			if err != nil {
				return list, false, err
			}
			write = write || len(arrived) > 0
		} else if !i.Disabled {
			if item.Enroll, err = t.outstanding(holding); err != nil {
				return list, false, err
			}
			write = write || item.Enroll == nil
		}
		list.Identities = append(list.Identities, item)
	}
	return list, write, nil
}

func (t *tx) item(i identityRecord) assignmentItem {
	return assignmentItem{Kind: i.Kind, Name: i.Name, ClientID: i.ClientID, ObjectID: i.ObjectID, TenantID: t.a.tenant, ResourceID: i.ResourceID}
}

// outstanding writes the one-time token of a holding once more if it still has
// at least half of its life; nil if there is none.
func (t *tx) outstanding(h holdingRecord) (*enroll, error) {
	if h.Claim == "" {
		return nil, nil //nolint:nilnil // nothing is out
	}
	c, err := load[claimRecord](t, bucketClaim, h.Claim)
	left := c.Expires.Sub(t.now)
	if errors.Is(err, errAbsent) || err == nil && (left < enrollLife/2 || left > enrollLife) {
		return nil, nil //nolint:nilnil // it is over, or a clock jumped
	}
	if err != nil {
		return nil, err
	}
	return t.enrollment(c)
}

func (t *tx) enrollment(c claimRecord) (*enroll, error) {
	token, err := t.a.oneTimeToken(c)
	return &enroll{OTT: token, Expires: strconv.FormatInt(c.Expires.Unix(), 10)}, err
}

// offer makes the missing one-time tokens of the list, and notes which
// certificates have arrived.
func (t *tx) offer(h holder, list *assignmentList, applied uint64, source string) error {
	for n := range list.Identities {
		item := &list.Identities[n]
		if item.Kind != userAssigned || item.Enroll != nil {
			continue
		}
		i, err := load[identityRecord](t, bucketIdentity, item.ClientID)
		if err != nil {
			return err
		}
		holding, err := t.holding(h.machine.VMID, item.ClientID)
		if err != nil {
			return err
		}
		may, err := t.mayEnroll(holding, applied)
		switch {
		case err != nil:
			return err
		case !may:
			err = t.delivered(holding, applied)
		case !i.Disabled:
			item.Enroll, err = t.offerOne(h, i, holding, source)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// offerOne makes a one-time token. A holding has at most one: a new one takes
// the place of the old.
func (t *tx) offerOne(h holder, i identityRecord, holding holdingRecord, source string) (*enroll, error) {
	if holding.Claim != "" {
		if err := drop(t, bucketClaim, holding.Claim); err != nil {
			return nil, err
		}
	}
	c := claimRecord{
		JTI: newID(), Kind: claimEnroll, Machine: h.machine.Name, VMID: h.machine.VMID, ClientID: i.ClientID, ObjectID: i.ObjectID,
		By: h.identity.ObjectID, Made: t.now.UTC(), Expires: t.now.Add(enrollLife).UTC(),
	}
	holding.Claim = c.JTI
	if err := errors.Join(save(t, bucketClaim, c.JTI, c), t.saveHolding(holding)); err != nil {
		return nil, err
	}
	t.note(Entry{
		Action: "enroll-offered", Principal: h.identity.ObjectID, Source: source, Scope: i.ResourceID,
		Machine: h.machine.Name, ClientID: i.ClientID, JTI: c.JTI, Expires: c.Expires,
	})
	return t.enrollment(c)
}

// generationOf reads the generation that a machine says it has applied from
// its If-None-Match; 0 if it says none, or not one of ours.
func generationOf(header string) uint64 {
	tag, ok := strings.CutPrefix(strings.TrimPrefix(strings.TrimSpace(header), "W/"), `"`)
	tag, closed := strings.CutSuffix(tag, `"`)
	n, err := strconv.ParseUint(tag, 10, 64)
	if !ok || !closed || err != nil {
		return 0
	}
	return n
}
