package site

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestCertificatesLiveAsLongAsTheOperatorSays(t *testing.T) {
	t.Parallel()
	const life = 90 * time.Second
	w := newWorld(t, func(o *Options) { o.CertificateLife = life })
	d := w.connect("gw")
	if got := d.leaf().NotAfter.Sub(w.clock.Now()); got != life {
		t.Errorf("signed for %s, want %s", got, life)
	}
	w.clock.add(life / 2)
	renewed := w.rekey(d)
	if got := renewed.leaf().NotAfter.Sub(w.clock.Now()); got != life {
		t.Errorf("renewed for %s, want %s", got, life)
	}
	body := signBody(t, newKey(t), w.claim(ClaimRequest{Machine: "other"}))
	body["notAfter"] = "2m"
	if a := w.post(nil, "/sign", body); a.status != http.StatusForbidden || !strings.Contains(string(a.body), "maximum certificate duration") {
		t.Errorf("more than is allowed was answered %d %s", a.status, a.body)
	}
	if a := w.do(nil, "GET", "/provisioners", nil, ""); !strings.Contains(string(a.body), `"maxTLSCertDuration":"1m30s","minTLSCertDuration":"1s"`) {
		t.Errorf("provisioners: %s", a.body)
	}
	w.clock.add(life + time.Second)
	if a, err := w.try(renewed, "POST", "/1.0/renew", nil, ""); err == nil {
		t.Errorf("a certificate that is over was renewed: %d %s", a.status, a.body)
	}
}

// A site that is told to issue shorter ones shortens those that are out, too, at
// their next renewal; but not what lives less already.
func TestShorterCertificatesReachThoseThatAreOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	long := w.connect("gw")
	w.close()
	w.opts.CertificateLife = 24 * time.Hour
	w.open()
	day := w.rekey(long)
	if got := day.leaf().NotAfter.Sub(w.clock.Now()); got != 24*time.Hour {
		t.Errorf("renewed for %s, want a day", got)
	}
	w.close()
	w.opts.CertificateLife = 0
	w.open()
	w.clock.add(time.Hour)
	if got := w.rekey(day).leaf().NotAfter.Sub(w.clock.Now()); got != 24*time.Hour {
		t.Errorf("renewed for %s, want a day as before", got)
	}
}

func TestCertificateLifeHasBounds(t *testing.T) {
	t.Parallel()
	for life, good := range map[time.Duration]bool{
		time.Minute: true, leafLife: true,
		-time.Hour: false, time.Minute - 1: false, leafLife + 1: false,
	} {
		opts := testOptions(&wall{now: start})
		opts.CertificateLife = life
		if _, err := newAuthority(opts); (err == nil) != good || err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", life, err)
		}
	}
}
