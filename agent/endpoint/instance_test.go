package endpoint

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

func board() Instance {
	return Instance{
		AzEnvironment: "AzurePublicCloud", Location: "westeurope", Name: `gw "42"`, OSType: "Linux", Provider: "Microsoft.HybridCompute",
		ResourceGroupName: "rg", ResourceID: "/subscriptions/s/x", SecureBootEnabled: "true", VirtualTPMEnabled: "false", SKU: "Debian",
		SubscriptionID: "s", Tags: []Tag{{"site", "north"}, {"line", "4"}}, TenantID: system.TenantID, Version: "6.18", VMID: "v",
	}
}

func TestInstanceDocumentHasEveryKeyAndOnlyStringsAsPrimitives(t *testing.T) {
	for _, flavour := range []Flavour{Arc, IMDS} {
		for _, instance := range []func() Instance{board, nil} {
			r := newRig(t, flavour, func(o *Options) { o.Instance = instance })
			rep := r.get("/metadata/instance?api-version=2020-06-01&format=json")
			r.must(rep, http.StatusOK, `{"compute":{`)
			var doc struct {
				Compute map[string]any `json:"compute"`
				Network map[string]any `json:"network"`
			}
			if err := json.Unmarshal([]byte(rep.body), &doc); err != nil {
				t.Fatal(err)
			}
			for _, key := range strings.Fields(`azEnvironment location name osType provider resourceGroupName resourceId sku subscriptionId tags version vmId
				isHostCompatibilityLayerVm offer placementGroupId platformFaultDomain platformUpdateDomain publisher customData vmScaleSetName vmSize zone`) {
				if _, ok := doc.Compute[key].(string); !ok {
					t.Errorf("%s is %v, want a string", key, doc.Compute[key])
				}
				delete(doc.Compute, key)
			}
			security, _ := doc.Compute["securityProfile"].(map[string]any)
			plan, _ := doc.Compute["plan"].(map[string]any)
			storage, okStorage := doc.Compute["storageProfile"].(map[string]any)
			_, okTags := doc.Compute["tagsList"].([]any)
			keys, okKeys := doc.Compute["publicKeys"]
			if len(security) != 2 || len(plan) != 3 || !okStorage || len(storage) != 0 || !okTags || !okKeys || keys != nil || len(doc.Compute) != 5 || len(doc.Network) != 0 {
				t.Errorf("got %s", rep.body)
			}
		}
	}
}

func TestDocumentsAnswerAsTheRealOnesDo(t *testing.T) {
	r := newRig(t, IMDS, func(o *Options) { o.Instance = board })
	const v, text = "?api-version=2021-02-01", "?api-version=2021-02-01&format=text"
	for uri, want := range map[string]string{
		"/metadata/instance/compute/name" + text:                              `gw "42"`,
		"//metadata//instance/compute/name/" + text:                           `gw "42"`,
		"/metadata/instance/compute/tags" + text:                              "site:north;line:4",
		"/metadata/instance/compute/tagsList" + v:                             `[{"name":"site","value":"north"},{"name":"line","value":"4"}]`,
		"/metadata/instance/compute/tagsList/1/value" + text:                  "4",
		"/metadata/instance/compute/securityProfile" + v:                      `{"secureBootEnabled":"true","virtualTpmEnabled":"false"}`,
		"/metadata/instance/compute/securityProfile/secureBootEnabled" + text: "true",
		"/metadata/instance/compute/publicKeys" + v:                           "null",
		"/metadata/instance/network" + v:                                      "{}",
		"/metadata/instance/compute/zone" + text:                              "",
		"/metadata/identity/info" + v:                                         `{"tenantId":"` + system.TenantID + `"}`,
		"/metadata/versions":                                                  `{"apiVersions":["2018-02-01","2019-08-01","2019-08-15","2019-11-01","2020-06-01","2021-02-01"]}`,
		"/metadata/versions/?x=y":                                             `{"apiVersions":["2018-02-01","2019-08-01","2019-08-15","2019-11-01","2020-06-01","2021-02-01"]}`,
	} {
		rep := r.get(uri)
		if rep.StatusCode != http.StatusOK || rep.body != want {
			t.Errorf("%s: %d %s", uri, rep.StatusCode, rep.body)
		}
		if plain := strings.Contains(uri, "format=text"); plain != (rep.Header.Get("Content-Type") == typeText) {
			t.Errorf("%s: Content-Type %s", uri, rep.Header.Get("Content-Type"))
		}
		mustAlwaysSend(t, rep)
	}
	if len(r.stub.asked()) != 0 {
		t.Error("a document asked for a token")
	}
}

func TestDocumentsRefuseWhatTheRealOnesRefuse(t *testing.T) {
	r := newRig(t, Arc, func(o *Options) { o.Instance = board })
	const v = "?api-version=2021-02-01"
	const noVersion = `{"error":"Bad request. api-version is invalid or was not specified in the request.","newest-versions":["2019-11-01","2020-06-01","2021-02-01"]}`
	for uri, want := range map[string]struct {
		status int
		body   string
	}{
		"/metadata/instance":                                   {400, noVersion},
		"/metadata/instance?api-version=x":                     {400, noVersion},
		"/metadata/identity/info":                              {400, noVersion},
		"/metadata/instance/compute/name" + v:                  {400, "format=text"},
		"/metadata/instance/compute/name" + v + "&format=json": {400, "format=text"},
		"/metadata/instance" + v + "&format=text":              {400, "format must be json"},
		"/metadata/instance" + v + "&format=xml":               {400, "format must be json"},
		"/metadata/instance" + v + v[1:]:                       {400, "api-version"},
		"/metadata/instance" + v + "&api-version=2021-02-01":   {400, "once"},
		"/metadata/versions?x=%":                               {400, "not well encoded"},
		"/metadata/identity/info?x=%":                          {400, "not well encoded"},
		"/metadata/instance/compute/nothing" + v:               {404, "nothing at this path"},
		"/metadata/instance/compute/name/x" + v:                {404, "nothing at this path"},
		"/metadata/instance/compute/tagsList/2" + v:            {404, "nothing at this path"},
		"/metadata/instance/compute/tagsList/-1" + v:           {404, "nothing at this path"},
		"/metadata/instance/compute/tagsList/256" + v:          {404, "nothing at this path"},
		"/metadata/instance/compute/tagsList/0x0" + v:          {404, "nothing at this path"},
		"/metadata/instance/compute/publicKeys/0" + v:          {404, "nothing at this path"},
		"/metadata/instances" + v:                              {404, "Nothing is served"},
		"/metadata/instance.json" + v:                          {404, "Nothing is served"},
	} {
		rep := r.get(uri)
		if rep.StatusCode != want.status || !strings.Contains(rep.body, want.body) {
			t.Errorf("%s: %d %s, want %d %s", uri, rep.StatusCode, rep.body, want.status, want.body)
		}
	}
}
