package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/node"
	"github.com/kapsel-dev/kapsel/internal/signature"
)

// demo is what `kapsel dev` makes, and what --ready-file holds. The other commands find their server in it.
type demo struct {
	URL            string `json:"url"`
	APIKey         string `json:"api_key"`
	EndpointID     string `json:"endpoint_id"`
	IngestURL      string `json:"ingest_url"`
	SigningSecret  string `json:"signing_secret"`
	DestinationID  string `json:"destination_id"`
	DestinationURL string `json:"destination_url"`
	LogID          string `json:"log_id"`
	LogURL         string `json:"log_url"`
	PublicKey      string `json:"public_key"`
}

// demoFile holds the demo of a data directory, so that the next start finds it again.
const demoFile = "demo.json"

// devDemo is that of the data directory, or with "" the usual one.
func devDemo(dataDir string) (demo, error) {
	dir, err := devDir(dataDir)
	if err != nil {
		return demo{}, err
	}
	return readDemo(dir)
}

// readDemo reads what an earlier start made. fs.ErrNotExist when there was none.
func readDemo(dir string) (demo, error) {
	var d demo
	data, err := os.ReadFile(filepath.Join(dir, demoFile))
	if err != nil {
		return d, err
	}
	if err := json.Unmarshal(data, &d); err != nil {
		return d, fmt.Errorf("%s: %w: remove it to make a new demo", demoFile, err)
	}
	return d, nil
}

// write puts the demo into a file of mode 0600, whole or not at all.
func (d demo) write(path string) error {
	data, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return fmt.Errorf("encode demo: %w", err)
	}
	err = writeWhole(path, 0o600, func(file io.Writer) error {
		_, err := file.Write(append(data, '\n'))
		return err
	})
	if err != nil {
		return fmt.Errorf("write demo: %w", err)
	}
	return nil
}

// setUpDemo makes a tenant, an API key, an endpoint (GitHub preset) and a destination, or finds those of an earlier start.
func setUpDemo(ctx context.Context, n *node.Node, dir, destinationURL string) (demo, error) {
	d, err := readDemo(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return d, err
	}
	d.URL = n.URL()
	if err == nil {
		client := newClient(d.URL, d.APIKey)
		if _, err := client.endpoints.GetEndpoint(ctx, &kapselv1.GetEndpointRequest{EndpointId: d.EndpointID}); err == nil {
			if err := d.moveEcho(ctx, client, destinationURL); err != nil {
				return d, err
			}
			return d, d.describeLog(ctx, n)
		}
	}
	if d.APIKey, err = createTenantWithKey(ctx, n.DB(), "Demo"); err != nil {
		return d, err
	}
	client := newClient(d.URL, d.APIKey)
	d.SigningSecret = signature.NewSecret()
	endpoint, err := client.endpoints.CreateEndpoint(ctx, &kapselv1.CreateEndpointRequest{
		Endpoint: &kapselv1.Endpoint{
			DisplayName:   "Demo: GitHub",
			Verification:  &kapselv1.Verification{Preset: "github"},
			PayloadFormat: kapselv1.PayloadFormat_PAYLOAD_FORMAT_JSON,
		},
		Secrets: []string{d.SigningSecret},
	})
	if err != nil {
		return d, fmt.Errorf("create demo endpoint: %w", err)
	}
	d.EndpointID = endpoint.Endpoint.Id
	destination, err := client.destinations.CreateDestination(ctx, &kapselv1.CreateDestinationRequest{
		Destination: &kapselv1.Destination{
			DisplayName: "Demo: echo", EndpointId: d.EndpointID, Url: destinationURL, ForwardedHeaders: []string{"*"},
		},
	})
	if err != nil {
		return d, fmt.Errorf("create demo destination: %w", err)
	}
	d.DestinationID, d.DestinationURL = destination.Destination.Id, destinationURL
	return d, d.describeLog(ctx, n)
}

// moveEcho has the demo's destination follow the echo to url: it listens elsewhere when another program has taken its port. A
// destination that was pointed somewhere else since, or deleted, stays so.
func (d *demo) moveEcho(ctx context.Context, client client, url string) error {
	if d.DestinationURL == url {
		return nil
	}
	present, err := client.destinations.GetDestination(ctx, &kapselv1.GetDestinationRequest{DestinationId: d.DestinationID})
	if connect.CodeOf(err) == connect.CodeNotFound || err == nil && present.Destination.Url != d.DestinationURL {
		return nil
	}
	if err == nil {
		_, err = client.destinations.UpdateDestination(ctx, &kapselv1.UpdateDestinationRequest{
			DestinationId: d.DestinationID, Destination: &kapselv1.Destination{Url: url},
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"url"}},
		})
	}
	if err != nil {
		return fmt.Errorf("move demo destination: %w", err)
	}
	d.DestinationURL = url
	return nil
}

func (d *demo) describeLog(ctx context.Context, n *node.Node) (err error) {
	d.IngestURL = d.URL + "/ingest/" + d.EndpointID
	d.LogID = "1"
	d.LogURL = d.URL + "/log/" + d.LogID
	d.PublicKey, err = n.VerifierKey(ctx)
	return err
}
