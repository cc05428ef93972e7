package site

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// assignmentList is the answer to "which identities are mine" (authorities.md 5.5).
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
	var h holder
	var list assignmentList
	var write bool
	look := func(t *tx) (err error) {
		h, err = t.stepHolder(cert)
		if err == nil && h.identity.Kind != systemAssigned {
			err = forbidden("only the machine's system-assigned identity may ask for its identities")
		}
		if err == nil {
			list, write, err = t.assignments(h)
		}
		return err
	}
	err := a.view(look)
	if err == nil && (write || h.certificate.Seen.IsZero()) {
		err = a.update(r.Context(), func(t *tx) error {
			if err := look(t); err != nil {
				return err
			}
			return errors.Join(t.seen(&h), t.offer(h, &list, r.RemoteAddr))
		})
	}
	if err != nil {
		a.stepRefuse(w, r, e, err)
		return
	}
	a.touch(r.Context(), h.machine.VMID)
	tag := `"` + strconv.FormatUint(list.Generation, 10) + `"`
	w.Header().Set("ETag", tag)
	if matches(r.Header.Get("If-None-Match"), tag) && !list.offers() {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	writeJSON(w, http.StatusOK, list)
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
// that are out; write says that one must be made.
func (t *tx) assignments(h holder) (list assignmentList, write bool, err error) {
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
		may, err := t.mayEnroll(holding)
		if err != nil {
			return list, false, err
		}
		if may && !i.Disabled {
			claim, err := t.outstanding(holding)
			if err != nil {
				return list, false, err
			}
			if item.Enroll, err = t.enrollment(claim); err != nil {
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

// outstanding returns the one-time token of a holding if it still has more
// than half of its life, else a zero record.
func (t *tx) outstanding(h holdingRecord) (claimRecord, error) {
	if h.Claim == "" {
		return claimRecord{}, nil
	}
	c, err := load[claimRecord](t, bucketClaim, h.Claim)
	left := c.Expires.Sub(t.now)
	if errors.Is(err, errAbsent) || err == nil && (left < enrollLife/2 || left > enrollLife) {
		return claimRecord{}, nil
	}
	return c, err
}

func (t *tx) enrollment(c claimRecord) (*enroll, error) {
	if c.JTI == "" {
		return nil, nil
	}
	token, err := t.a.oneTimeToken(c)
	if err != nil {
		return nil, err
	}
	return &enroll{OTT: token, Expires: strconv.FormatInt(c.Expires.Unix(), 10)}, nil
}

// offer makes the missing one-time tokens of the list. A holding has at most
// one: a new one takes the place of the old.
func (t *tx) offer(h holder, list *assignmentList, source string) error {
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
		if may, err := t.mayEnroll(holding); err != nil || !may || i.Disabled {
			if err != nil {
				return err
			}
			continue
		}
		if holding.Claim != "" {
			if err := drop(t, bucketClaim, holding.Claim); err != nil {
				return err
			}
		}
		c := claimRecord{
			JTI: newID(), Kind: claimEnroll, Machine: h.machine.Name, VMID: h.machine.VMID, ClientID: i.ClientID, ObjectID: i.ObjectID,
			By: h.identity.ObjectID, Made: t.now.UTC().Truncate(time.Second), Expires: t.now.Add(enrollLife).UTC(),
		}
		holding.Claim = c.JTI
		if err := errors.Join(save(t, bucketClaim, c.JTI, c), t.saveHolding(holding)); err != nil {
			return err
		}
		t.note(Entry{Action: "enroll-offered", Principal: h.identity.ObjectID, Source: source, Scope: i.ResourceID, Machine: h.machine.Name, ClientID: i.ClientID, JTI: c.JTI, Expires: c.Expires})
		if item.Enroll, err = t.enrollment(c); err != nil {
			return err
		}
	}
	return nil
}

// matches compares an If-None-Match with a tag, weakly (RFC 9110 section 8.8.3.2).
func matches(header, tag string) bool {
	for _, part := range strings.Split(header, ",") {
		if part = strings.TrimPrefix(strings.TrimSpace(part), "W/"); part == tag || part == "*" {
			return true
		}
	}
	return false
}
