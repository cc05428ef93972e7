package endpoint

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"postern/agent/credential"
)

func TestEP1BadQueriesGet400NamingTheParameterAndMakeNoFile(t *testing.T) {
	rigs := []*rig{newRig(t, Arc), newRig(t, IMDS), newRig(t, AppService)}
	for query, names := range map[string]string{
		"":                                                                                      "api-version is missing",
		"resource=x":                                                                            "api-version is missing",
		"api-version=2020-06-01":                                                                "resource is missing",
		"api-version=2020-06-01&scope=x":                                                        "scope is not read",
		"scope=x&api-version=2020-06-01":                                                        "scope is not read",
		"api-version=2020-06-01&Resource=x":                                                     "resource is missing",
		"api-version=2020-06-01&resource=":                                                      "resource is empty",
		"api-version=2020-06-01&resource":                                                       "resource is empty",
		"api-version=2020-06-01&resource=+":                                                     "resource is empty",
		"api-version=2020-06-01&resource=/.default":                                             "resource is empty",
		"api-version=2020-06-01&resource=a&resource=a":                                          "resource may be given once",
		"api-version=2020-06-01&resource=a&%72esource=a":                                        "resource may be given once",
		"api-version=2020-06-01&api-version=2020-06-01&resource=a":                              "api-version may be given once",
		"api-version=2020-6-1&resource=a":                                                       "api-version is not a date",
		"api-version=&resource=a":                                                               "api-version is empty",
		"api-version=latest&resource=a":                                                         "api-version is not a date",
		"api-version=2020-06-01-&resource=a":                                                    "api-version is not a date",
		"api-version=2020-06-01/x&resource=a":                                                   "api-version is not a date",
		"api-version=2020-06-01&resource=a%00":                                                  "resource has characters",
		"api-version=2020-06-01&resource=a%0d%0aX:y":                                            "resource has characters",
		"api-version=2020-06-01&resource=a%7f":                                                  "resource has characters",
		"api-version=2020-06-01&resource=%ff%fe":                                                "resource has characters",
		"api-version=2020-06-01&resource=%c3%a4":                                                "resource has characters",
		"api-version=2020-06-01&resource=\xc3\xa4":                                              "resource is not well encoded",
		"api-version=2020-06-01&resource=%":                                                     "resource is not well encoded",
		"api-version=2020-06-01&resource=%4":                                                    "resource is not well encoded",
		"api-version=2020-06-01&resource=%4g":                                                   "resource is not well encoded",
		"api-version=2020-06-01&resource=%u0041":                                                "resource is not well encoded",
		"api-version=2020-06-01&resource=a;resource=b":                                          "resource is not well encoded",
		"api-version=2020-06-01&resource=a&%zz=b":                                               "name of a parameter",
		"api-version=2020-06-01&resource=a&other=%":                                             "other is not well encoded",
		"api-version=2020-06-01&resource=a&" + strings.Repeat("k", 40) + "=%":                   "a parameter is not well encoded",
		"api-version=2020-06-01&resource=" + strings.Repeat("r", maxResource+1):                 "resource is too long",
		"api-version=2020-06-01&resource=a&client_id=" + strings.Repeat("c", 1025):              "client_id is too long",
		"api-version=2020-06-01&resource=a&other=" + strings.Repeat("c", 1025):                  "other is longer than 1024",
		"api-version=2020-06-01&resource=a" + strings.Repeat("&x=y", maxQuery/4):                "6144",
		"api-version=2020-06-01&resource=a&client_id=a&object_id=b":                             "only one may be given",
		"api-version=2020-06-01&resource=a&client_id=a&client_id=a":                             "only one may be given",
		"api-version=2020-06-01&resource=a&object_id=a&principal_id=a":                          "only one may be given",
		"api-version=2020-06-01&resource=a&msi_res_id=a&mi_res_id=a":                            "only one may be given",
		"api-version=2020-06-01&resource=a&client_id=":                                          "client_id is empty",
		"api-version=2020-06-01&resource=a&client_id":                                           "client_id is empty",
		"api-version=2020-06-01&resource=a&msi_res_id=%0a":                                      "msi_res_id has characters",
		"api-version=2020-06-01&resource=a&token_sha256_to_refresh=a&token_sha256_to_refresh=a": "token_sha256_to_refresh may be given once",
	} {
		for _, r := range rigs {
			rep := r.get(map[Flavour]string{Arc: pathToken, IMDS: pathToken, AppService: pathAppService}[r.flavour]+"?"+query, "X-IDENTITY-HEADER: "+webSecret)
			if rep.StatusCode != http.StatusBadRequest {
				t.Errorf("%s ?%.80s: %d", r.flavour, query, rep.StatusCode)
				continue
			}
			if e := decodeError(t, rep); e.Error != "invalid_request" || !strings.Contains(e.Description, names) {
				t.Errorf("%s ?%.80s: %+v, want %q", r.flavour, query, e, names)
			}
		}
	}
	for _, r := range rigs {
		if f := r.files(); len(f) != 0 || len(r.stub.asked()) != 0 {
			t.Errorf("%s: files %q, the broker was asked %d times", r.flavour, f, len(r.stub.asked()))
		}
	}
	for _, r := range rigs {
		if rep := r.get(pathToken + "?api-version=2020-06-01&resource=" + strings.Repeat("r", 64<<10)); rep.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("resource of 64 KB: %d, want 431", rep.StatusCode)
		}
	}
}

func TestEP7HeadersBeyond8KiBGet431(t *testing.T) {
	r := newRig(t, IMDS)
	for size, want := range map[int]int{4000: 200, 7900: 200, 8400: 431, 100_000: 431} {
		if rep := r.get(tokenURI, "X: "+strings.Repeat("x", size)); rep.StatusCode != want {
			t.Errorf("header of %d bytes: %d, want %d", size, rep.StatusCode, want)
		}
	}
}

func TestAnyVersionThatIsADateIsTaken(t *testing.T) {
	for version, want := range map[string]bool{
		"2018-02-01": true, "2019-08-01": true, "2019-08-15": true, "2019-11-01": true, "2020-06-01": true, "2021-02-01": true,
		"2031-12-31": true, "9999-99-99": true, "2020-06-01-preview": true, "2020-06-01-alpha.1": true,
		"2020-06-01-": false, "2020-06-01x": false, "2020-06-0": false, "20200601": false, "2020_06_01": false, "x020-06-01": false,
		"2020-06-01-a b": false, "2020-06-01-" + strings.Repeat("a", 60): false, "": false,
	} {
		if got := isVersion(version); got != want {
			t.Errorf("%q: %v", version, got)
		}
	}
}

func TestUnknownParametersAreIgnored(t *testing.T) {
	r := newRig(t, IMDS)
	for _, more := range []string{"&claims=x", "&xms_cc=cp1", "&bypass_cache=true", "&x=1&x=2", "&&&", "&=", "&=x", "&a=b=c", "&x=%00", "&x=%c3%a4", "&Client_Id=x", "&format=text"} {
		if rep := r.get(tokenURI + more); rep.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %s", more, rep.StatusCode, rep.body)
		}
	}
}

func TestSelectorsReachTheBrokerAsAsked(t *testing.T) {
	r := newRig(t, IMDS)
	for _, key := range []string{"client_id", "object_id", "principal_id", "msi_res_id", "mi_res_id"} {
		r.must(r.get(tokenURI+"&"+key+"=%2Fsubscriptions%2fA+b"), http.StatusOK, canary)
		want := credential.Selector{Key: key, Value: "/subscriptions/A b"}
		if got := r.stub.selected[len(r.stub.selected)-1]; got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

// FuzzQuery holds the strict parser against net/url: where both accept, they
// agree, and what we accept is bounded and clean.
func FuzzQuery(f *testing.F) {
	for _, seed := range []string{
		"", "api-version=2020-06-01&resource=https%3A%2F%2Fvault.azure.net&client_id=x", "resource=a&resource=b", "%72esource=a+b%20c", "a;b", "&&=&", "resource=%",
		"format=text&token_sha256_to_refresh=00",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		p, problem := parseQuery(raw)
		if problem != "" {
			if len(problem) > 200 || !printable(problem) {
				t.Errorf("problem %q", problem)
			}
			return
		}
		values, err := url.ParseQuery(raw)
		if err != nil {
			t.Fatalf("%q: accepted, and net/url says %v", raw, err)
		}
		selectors := 0
		for _, key := range []string{"client_id", "object_id", "principal_id", "msi_res_id", "mi_res_id"} {
			selectors += len(values[key])
		}
		if selectors > 1 || selectors == 1 && values.Get(p.selector.Key) != p.selector.Value {
			t.Errorf("%q: selector %+v of %d", raw, p.selector, selectors)
		}
		for key, got := range map[string]string{"api-version": p.apiVersion, "resource": p.resource, "format": p.format, "token_sha256_to_refresh": p.refresh} {
			if len(values[key]) > 1 || values.Get(key) != got || len(got) > maxResource || !printable(got) {
				t.Errorf("%q: %s is %q, net/url has %q", raw, key, got, values[key])
			}
		}
	})
}
